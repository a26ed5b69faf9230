"""Make the files that clients believe, when there are enough signatures, and confirm them from time to time.

The pending files are removed last. So a process may be killed at any moment, and the same command continues.

A new root comes with a timestamp, a snapshot and a list that the old keys have signed too, as far as they are here.
TUF's clients count the signatures of keys that their root names, and ignore others. So clients believe these files with
the old root and with the new one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from securesystemslib.signer import CryptoSigner  # pyright: ignore[reportPrivateImportUsage]
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp  # pyright: ignore[reportPrivateImportUsage]

from dynpin.errors import RecoveryError
from dynpin.pin_list import PinList

from .expiry import expires_soon, expiry_of
from .keys import ONLINE, with_keys
from .repository import Repository
from .signed_files import Refused, SignedFiles, is_signed, list_name
from .storage import changing, make_folder, write

__all__ = ["complete", "refresh"]


def complete(repository: Repository, signers: Sequence[CryptoSigner], *, now: float, above: int = 0) -> None:
    """Make the pending files with enough signatures the current ones, with a new snapshot and a new timestamp.

    Args:
        repository: the operator's folder.
        signers: keys; those of snapshot and timestamp must be among them.
        now: seconds since the epoch, UTC.
        above: the version of a timestamp that clients may have seen; see :func:`.publishing.compare`.

    Raises:
        Refused: if signatures are missing.
        InvalidPinFile: if clients could not read the list.
        RecoveryError: if one of the two keys is missing, or the folder cannot be written.
    """
    with changing(repository.folder):
        lacking = next((each for each in repository.pending() if each.missing), None)
        if lacking is not None:
            raise Refused(f"{lacking}: `dynpin recovery sign --key FILE` adds it, on any machine that has this folder")
        files, waiting = repository.files, repository.waiting
        coming, targets, root = waiting.coming_root(), waiting.targets(), waiting.root()
        _refuse_unsigned(files, coming, targets)
        former = coming if root is None else waiting.former_root(root)
        for role in ONLINE:
            _signer_of(coming, role, signers)  # before anything is written
        if targets is not None:
            data = waiting.list_data(targets)
            PinList.parse(data)
            write(make_folder(files.folder / "targets") / list_name(targets.signed), data)
            write(files.file("targets", targets.signed.version), targets.to_bytes())
        if root is not None:
            write(files.file("root", root.signed.version), root.to_bytes())
        _make_snapshot(repository, _signers_of(coming, former, "snapshot", signers), now)
        _make_timestamp(repository, _signers_of(coming, former, "timestamp", signers), now, above)
        waiting.clear()


def refresh(
    repository: Repository,
    signers: Sequence[CryptoSigner],
    *,
    now: float,
    above: int = 0,
) -> None:
    """Confirm the current files with a new timestamp. A snapshot that expires soon is signed again.

    Args:
        repository: the operator's folder.
        signers: the key of timestamp, and that of snapshot if it is here.
        now: seconds since the epoch, UTC.
        above: the version of a timestamp that clients may have seen; see :func:`.publishing.compare`.

    Raises:
        Refused: if nothing has been published yet, or if too few keys have signed the list.
        RecoveryError: if the key is missing, or the folder cannot be written.
    """
    with changing(repository.folder):
        files = repository.files
        if not files.newest("snapshot"):
            raise Refused("nothing has been published yet: `dynpin recovery publish FOLDER` does so")
        root = files.root().signed
        _refuse_unsigned(files, root, None)
        signer = _signer_of(root, "timestamp", signers)
        has_key = bool(with_keys(signers, root.roles["snapshot"].keyids))
        # Without the key of snapshot, `status` warns before it expires. One that names an older list needs the key now.
        if not _has_snapshot(files, root) or (has_key and expires_soon("snapshot", files.snapshot().signed, now)):
            _make_snapshot(repository, [_signer_of(root, "snapshot", signers)], now)
        _make_timestamp(repository, [signer], now, above)


def _has_snapshot(files: SignedFiles, root: Root) -> bool:
    """Whether the newest snapshot names the newest list."""
    snapshot = files.snapshot()
    names = snapshot.signed.meta["targets.json"].version
    return is_signed(root, "snapshot", snapshot) and names == files.newest("targets")


def _refuse_unsigned(files: SignedFiles, root: Root, targets: Metadata[Targets] | None) -> None:
    """Refuse what no client would believe: roots that do not follow each other, or a list with too few signatures."""
    for fault in files.root_faults():
        raise Refused(f"{fault}. A copy of this folder, or `dynpin recovery catch-up FOLDER`, may have the right one")
    if targets is None and not files.newest("targets"):
        raise Refused("there is no list yet: `dynpin recovery sign dynpin.toml` makes one")
    targets = files.targets() if targets is None else targets
    if not is_signed(root, "targets", targets):
        raise Refused(
            f"version {targets.signed.version} of the list is signed by too few of the keys that version "
            f"{root.version} of the root names. If a command was killed, `dynpin recovery publish FOLDER` continues "
            "it; otherwise `dynpin recovery sign dynpin.toml` makes a new list"
        )


def _make_snapshot(repository: Repository, signers: Iterable[CryptoSigner], now: float) -> None:
    version = repository.next_version("snapshot")
    meta = {"targets.json": MetaFile(repository.files.newest("targets"))}
    snapshot = Metadata(Snapshot(version, expires=expiry_of("snapshot", now), meta=meta))
    for signer in signers:
        snapshot.sign(signer, append=True)
    write(repository.files.file("snapshot", version), snapshot.to_bytes())


def _make_timestamp(repository: Repository, signers: Iterable[CryptoSigner], now: float, above: int) -> None:
    version = max(repository.next_version("timestamp"), above + 1)
    meta = MetaFile(repository.files.newest("snapshot"))
    timestamp = Metadata(Timestamp(version, expires=expiry_of("timestamp", now), snapshot_meta=meta))
    for signer in signers:
        timestamp.sign(signer, append=True)
    write(repository.files.file("timestamp"), timestamp.to_bytes())


def _signer_of(root: Root, role: str, signers: Sequence[CryptoSigner]) -> CryptoSigner:
    found = with_keys(signers, root.roles[role].keyids)
    if not found:
        raise RecoveryError(f"the key of {role} is not here: name its file with --key, or put it into the folder keys")
    return found[0]


def _signers_of(coming: Root, former: Root, role: str, signers: Sequence[CryptoSigner]) -> list[CryptoSigner]:
    """The key of a role, and the key that it replaces, if that is here."""
    own = _signer_of(coming, role, signers)
    old = with_keys(signers, former.roles[role].keyids)
    return [own, *(each for each in old if each.public_key.keyid != own.public_key.keyid)]
