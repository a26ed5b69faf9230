"""The repository: what has been signed, what waits for signatures, and the static files that clients read.

A folder of the operator's::

    keys/       private halves; all but snapshot's and timestamp's are moved elsewhere
    pending/    a new root, or a new list, that has not enough signatures yet
    public/     what is published: N.root.json, N.targets.json, N.snapshot.json, timestamp.json, targets/

It is plain TUF with consistent snapshots (https://theupdateframework.github.io/specification/latest/), made by
python-tuf's own classes. ``N.root.json`` stay for ever: a client that has been away walks from the one that it knows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from securesystemslib.exceptions import StorageError
from securesystemslib.signer import CryptoSigner  # pyright: ignore[reportPrivateImportUsage]
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Root, Signed, Snapshot, TargetFile, Targets, Timestamp  # pyright: ignore[reportPrivateImportUsage]

from dynpin.errors import RecoveryError
from dynpin.middleware.policy import write_atomically
from dynpin.pin_list import PIN_LIST, PinList
from dynpin.recovery import Recovery

from ..keys import new_files
from .keys import OFFLINE, ONLINE, ROLES, key_file, new_signers, pem_of

__all__ = ["LIFETIMES", "Pending", "Repository", "create"]

_Signed = TypeVar("_Signed", Root, Snapshot, Targets, Timestamp)

# How long a signature is good for. The list's is the time in which somebody must sign again; the timestamp's is how
# long an attacker who can hold back files can hide a newer list from a client.
LIFETIMES: Mapping[str, timedelta] = {
    "root": timedelta(days=5 * 365),
    "targets": timedelta(days=365),
    "snapshot": timedelta(days=365),
    "timestamp": timedelta(days=7),
}


@dataclass(frozen=True, slots=True)
class Pending:
    """What waits for signatures.

    Attributes:
        role: ``"root"`` or ``"targets"``.
        version: the version that it will be.
        missing: how many signatures are needed still.
    """

    role: str
    version: int
    missing: int


def create(folder: Path, *, threshold: int, of: int, passphrase: bytes, now: float) -> Repository:
    """Make keys and version 1 of the root.

    Args:
        folder: the operator's; it must not have a repository yet.
        threshold: how many keys must sign a root, or a list.
        of: how many keys there are of each.
        passphrase: encrypts the private halves of root and targets.
        now: seconds since the epoch, UTC.

    Raises:
        RecoveryError: for a threshold that no number of keys reaches.
        FileExistsError: where there is a repository already.
        OSError: where the folder cannot be written.
    """
    if not 1 <= threshold <= of <= 15:
        raise RecoveryError(f"{threshold} of {of} keys: give a threshold from 1 to the number of keys, at most 15")
    root = Root(expires=_expiry("root", now), consistent_snapshot=True)
    files, signers = _new_keys(root, folder, ROLES, threshold=threshold, of=of, passphrase=passphrase)
    signed = Metadata(root)
    for signer in signers["root"]:
        signed.sign(signer, append=True)
    files[folder / "public" / "1.root.json"] = (signed.to_bytes(), 0o644)
    with new_files(files):
        return Repository(folder)


def _new_keys(
    root: Root, folder: Path, roles: Iterable[str], *, threshold: int, of: int, passphrase: bytes
) -> tuple[dict[Path, tuple[bytes, int]], dict[str, list[CryptoSigner]]]:
    """Give the roles new keys in a root that is not signed yet; the files of their private halves, and the signers."""
    files: dict[Path, tuple[bytes, int]] = {}
    signers: dict[str, list[CryptoSigner]] = {}
    for role in roles:
        for keyid in [*root.roles[role].keyids]:
            root.revoke_key(keyid, role)
        made = new_signers(of if role in OFFLINE else 1)
        signers[role] = [signer for _, signer in made]
        for number, (key, signer) in enumerate(made, start=1):
            root.add_key(signer.public_key, role)
            secret = passphrase if role in OFFLINE else None
            files[key_file(folder / "keys", role, number, root.version)] = (pem_of(key, secret), 0o600)
        root.roles[role].threshold = threshold if role in OFFLINE else 1
    return files, signers


class Repository:
    """One repository on the disk.

    Args:
        folder: where it is.

    Raises:
        RecoveryError: where there is none.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.public = folder / "public"
        self.keys = folder / "keys"
        self._pending = folder / "pending"
        if not (self.public / "1.root.json").is_file():
            raise RecoveryError(f"there is no {self.public / '1.root.json'}: `dynpin recovery init` makes a repository")

    # -- reading ------------------------------------------------------------------------------------------------

    def recovery(self, uri: str) -> Recovery:
        """What a header names: the digest of version 1 of the root, for ever, and where the files are published.

        Raises:
            InvalidHeader: for a URI that cannot stand in a header.
        """
        return Recovery(self.root_digest, uri)

    @property
    def root_digest(self) -> bytes:
        """The SHA-256 of version 1 of the root."""
        return hashlib.sha256((self.public / "1.root.json").read_bytes()).digest()

    def root(self) -> Metadata[Root]:
        """The newest root that is complete."""
        return self._read(self.public / f"{_newest(self.public, 'root')}.root.json", Root)

    def signed(self) -> dict[str, Signed]:
        """What is complete, by role; a role that has signed nothing yet is missing."""
        found: dict[str, Signed] = {"root": self.root().signed}
        targets, snapshot = _newest(self.public, "targets"), _newest(self.public, "snapshot")
        if targets:
            found["targets"] = self._read(self.public / f"{targets}.targets.json", Targets).signed
        if snapshot:
            found["snapshot"] = self._read(self.public / f"{snapshot}.snapshot.json", Snapshot).signed
        if (self.public / "timestamp.json").is_file():
            found["timestamp"] = self._read(self.public / "timestamp.json", Timestamp).signed
        return found

    def pins(self) -> PinList | None:
        """The list that is published, or None."""
        version = _newest(self.public, "targets")
        if not version:
            return None
        targets = self._read(self.public / f"{version}.targets.json", Targets).signed
        return PinList.parse((self.public / "targets" / _published(targets)).read_bytes())

    def pending(self) -> list[Pending]:
        """What waits for signatures, the root first."""
        found: list[Pending] = []
        root = self._pending_root()
        if root is not None:
            both = root.signed.get_root_verification_result(self.root().signed, root.signed_bytes, root.signatures)
            found.append(Pending("root", root.signed.version, max(both.first.missing, both.second.missing)))
        targets = self._pending_targets()
        if targets is not None:
            signed = self._coming_root().get_verification_result("targets", targets.signed_bytes, targets.signatures)
            found.append(Pending("targets", targets.signed.version, signed.missing))
        return found

    def _pending_root(self) -> Metadata[Root] | None:
        return self._waiting("root", Root)

    def _pending_targets(self) -> Metadata[Targets] | None:
        return self._waiting("targets", Targets)

    def _waiting(self, role: str, kind: type[_Signed]) -> Metadata[_Signed] | None:
        file = self._pending / f"{role}.json"
        waiting = self._read(file, kind) if file.is_file() else None
        # A process that was killed may have published it already.
        return waiting if waiting is not None and waiting.signed.version > _newest(self.public, role) else None

    def _coming_root(self) -> Root:
        pending = self._pending_root()
        return (self.root() if pending is None else pending).signed

    def _read(self, file: Path, kind: type[_Signed]) -> Metadata[_Signed]:
        try:
            read: Metadata[_Signed] = Metadata.from_file(str(file))  # pyright: ignore[reportUnknownVariableType] - its Self is bare
        except (RepositoryError, StorageError, ValueError) as error:
            raise RecoveryError(f"{file} cannot be read: {error}. Put a copy of it back") from None
        if read.signed.type != kind.type:
            raise RecoveryError(f"{file} is {read.signed.type}, not {kind.type}. Put a copy of it back")
        return read

    # -- signing ------------------------------------------------------------------------------------------------

    def propose(self, pins: PinList, *, now: float) -> None:
        """Begin a new list; it waits for signatures. One that waited before is given up.

        Raises:
            OSError: where the folder cannot be written.
        """
        data = pins.to_bytes()
        target = TargetFile.from_data(PIN_LIST, data, ["sha256"])
        version = _newest(self.public, "targets") + 1
        targets = Metadata(Targets(version, expires=_expiry("targets", now), targets={PIN_LIST: target}))
        self._pending.mkdir(exist_ok=True)
        write_atomically(self._pending / PIN_LIST, data.decode("ascii"), 0o644)
        self._write(self._pending / "targets.json", targets)

    def propose_keys(
        self, roles: Iterable[str], *, threshold: int, of: int, passphrase: bytes, now: float
    ) -> list[Path]:
        """Begin a new root in which these roles have new keys; it waits for signatures of the old root and the new.

        Returns:
            the files of the new private halves.

        Raises:
            RecoveryError: for a threshold that no number of keys reaches; or where another root waits.
            OSError: where the folder cannot be written.
        """
        roles = tuple(roles)
        if self._pending_root() is not None:
            raise RecoveryError(
                f"version {self._coming_root().version} of the root waits for signatures: `dynpin recovery sign` adds "
                f"them; to give it up, remove {self._pending / 'root.json'}"
            )
        if not 1 <= threshold <= of <= 15:
            raise RecoveryError(f"{threshold} of {of} keys: give a threshold from 1 to the number of keys, at most 15")
        root = self.root()
        root.signed.version += 1
        root.signed.expires = _expiry("root", now)
        root.signatures.clear()
        files, signers = _new_keys(root.signed, self.folder, roles, threshold=threshold, of=of, passphrase=passphrase)
        for signer in signers.get("root", ()):
            root.sign(signer, append=True)
        pins = self.pins()
        with new_files(files):
            self._pending.mkdir(exist_ok=True)
            self._write(self._pending / "root.json", root)
            if "targets" in roles and pins is not None:  # what the old keys have signed counts no more
                self.propose(pins, now=now)
                self.add_signatures(signers["targets"])
        return [*files]

    def add_signatures(self, signers: Sequence[CryptoSigner]) -> int:
        """Sign what waits with every key that may; returns how many signatures were added.

        Raises:
            OSError: where the folder cannot be written.
        """
        root, targets, coming = self._pending_root(), self._pending_targets(), self._coming_root()
        added = 0
        if root is not None:
            both = {*coming.roles["root"].keyids, *self.root().signed.roles["root"].keyids}
            added += self._add_signatures("root", root, both, signers)
        if targets is not None:
            added += self._add_signatures("targets", targets, {*coming.roles["targets"].keyids}, signers)
        return added

    def _add_signatures(
        self, role: str, waiting: Metadata[_Signed], keyids: set[str], signers: Sequence[CryptoSigner]
    ) -> int:
        new = [each for each in signers if each.public_key.keyid in keyids - waiting.signatures.keys()]
        for signer in new:
            waiting.sign(signer, append=True)
        self._write(self._pending / f"{role}.json", waiting)
        return len(new)

    # -- publishing ---------------------------------------------------------------------------------------------

    def complete(self, signers: Sequence[CryptoSigner], *, now: float) -> None:
        """Take what has enough signatures for signed, and say by snapshot and timestamp that it is the present state.

        Args:
            signers: the keys of snapshot and timestamp among them.
            now: seconds since the epoch, UTC.

        Raises:
            RecoveryError: where signatures are missing, or one of the two keys.
            OSError: where the folder cannot be written.
        """
        lacking = next((each for each in self.pending() if each.missing), None)
        if lacking is not None:
            raise RecoveryError(
                f"version {lacking.version} of {_NAMES[lacking.role]} needs {lacking.missing} more "
                f"signature{'' if lacking.missing == 1 else 's'}: `dynpin recovery sign --key FILE` adds them, on any "
                "machine that has this folder"
            )
        coming, targets = self._coming_root(), self._pending_targets()
        if targets is None and not _newest(self.public, "targets"):
            raise RecoveryError("there is no list yet: `dynpin recovery sign dynpin.toml` makes one")
        online = {role: _signer_of(coming, role, signers) for role in ONLINE}
        root = self._pending_root()
        if root is not None:
            self._write(self.public / f"{root.signed.version}.root.json", root)
        if targets is not None:
            (self.public / "targets").mkdir(exist_ok=True)
            text = (self._pending / PIN_LIST).read_text("ascii")
            write_atomically(self.public / "targets" / _published(targets.signed), text, 0o644)
            self._write(self.public / f"{targets.signed.version}.targets.json", targets)
        for name in ("root.json", "targets.json", PIN_LIST):
            (self._pending / name).unlink(missing_ok=True)
        self._make_snapshot(online["snapshot"], now)
        self.refresh([online["timestamp"]], now=now)

    def _make_snapshot(self, signer: CryptoSigner, now: float) -> None:
        version = _newest(self.public, "snapshot") + 1
        meta = {"targets.json": MetaFile(_newest(self.public, "targets"))}
        snapshot = Metadata(Snapshot(version, expires=_expiry("snapshot", now), meta=meta))
        snapshot.sign(signer)
        self._write(self.public / f"{version}.snapshot.json", snapshot)

    def refresh(self, signers: Sequence[CryptoSigner], *, now: float, lifetime: timedelta | None = None) -> None:
        """Say that the present state is still the present one: a new timestamp, and nothing else.

        Raises:
            RecoveryError: where nothing has been published yet, or the key is missing.
            OSError: where the folder cannot be written.
        """
        version = _newest(self.public, "snapshot")
        if not version:
            raise RecoveryError("nothing has been published yet: `dynpin recovery publish` does so")
        earlier = self.signed().get("timestamp")
        timestamp = Metadata(
            Timestamp(
                1 if earlier is None else earlier.version + 1,
                expires=_expiry("timestamp", now, lifetime),
                snapshot_meta=MetaFile(version),
            )
        )
        timestamp.sign(_signer_of(self.root().signed, "timestamp", signers))
        self._write(self.public / "timestamp.json", timestamp)

    def publish(self, target: Path) -> list[str]:
        """Copy the public files to a folder that a web server serves, the timestamp last; returns those that changed.

        Raises:
            OSError: where the folder cannot be written.
        """
        changed: list[str] = []
        names = [path.relative_to(self.public) for path in self.public.rglob("*.json")]
        for name in sorted(names, key=lambda each: (each.name == "timestamp.json", str(each))):
            text, file = (self.public / name).read_text("utf-8"), target / name
            if not file.is_file() or file.read_text("utf-8") != text:
                file.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(file, text, 0o644)
                changed.append(str(name))
        return changed

    @staticmethod
    def _write(file: Path, signed: Metadata[_Signed]) -> None:
        write_atomically(file, signed.to_bytes().decode("utf-8"), 0o644)


_NAMES = {"root": "the root", "targets": "the list"}


def _newest(folder: Path, role: str) -> int:
    """The highest version of a role in a folder; 0 where there is none."""
    numbers = [path.name.partition(".")[0] for path in folder.glob(f"*.{role}.json")]
    return max((int(number) for number in numbers if number.isdecimal()), default=0)


def _published(targets: Targets) -> str:
    """The name of the list's file: its digest stands in it, so that old and new lie side by side."""
    return f"{targets.targets[PIN_LIST].hashes['sha256']}.{PIN_LIST}"


def _signer_of(root: Root, role: str, signers: Sequence[CryptoSigner]) -> CryptoSigner:
    found = next((each for each in signers if each.public_key.keyid in root.roles[role].keyids), None)
    if found is None:
        raise RecoveryError(f"the key of {role} is not here: name its file by --key, or put it into the folder keys")
    return found


def _expiry(role: str, now: float, lifetime: timedelta | None = None) -> datetime:
    return datetime.fromtimestamp(int(now), UTC) + (lifetime or LIFETIMES[role])
