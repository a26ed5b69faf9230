"""The repository: what has been signed, what waits for signatures, and the static files that clients read.

A folder of the operator::

    keys/        private halves; all except snapshot's and timestamp's are moved elsewhere
    pending/     a new root, or a new list, without enough signatures yet
    public/      the published files: N.root.json, N.targets.json, N.snapshot.json, timestamp.json, targets/
    published-to the path of the web server's folder, as it was given last
    superseded/  files that were replaced: no key and no signed file is ever deleted

It is plain TUF with consistent snapshots (https://theupdateframework.github.io/specification/latest/), made with
python-tuf's own classes. All ``N.root.json`` stay for ever: a client starts at the one that it knows.

A process may be killed between any two files. So each step may be run again, with the same result.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import CryptoSigner  # pyright: ignore[reportPrivateImportUsage]
from tuf.api.metadata import Key, Metadata, Root, Signed, TargetFile, Targets  # pyright: ignore[reportPrivateImportUsage]

from dynpin.counts import counted
from dynpin.errors import RecoveryError
from dynpin.middleware.policy import read_file, sync_folder
from dynpin.pin_list import PIN_LIST, PinList
from dynpin.recovery import Recovery

from ..keys import new_files
from .expiry import expires_soon, expiry_of
from .keys import OFFLINE, ROLES, key_file, new_signers, pem_of, with_keys
from .listing import differences, key_differences
from .signed_files import NAMES, Refused, SignedFiles
from .storage import PRIVATE, changing, make_folder, move_aside, unwritable, write
from .waiting import Pending, Waiting

__all__ = ["Repository", "create"]


def create(folder: Path, *, threshold: int, of: int, passphrase: bytes, now: float) -> Repository:
    """Make keys and version 1 of the root.

    Args:
        folder: the operator's folder; it must not have a repository yet.
        threshold: how many keys must sign a root, or a list.
        of: how many keys there are for each.
        passphrase: encrypts the private halves of root and targets.
        now: seconds since the epoch, UTC.

    Raises:
        FileExistsError: if there is a repository already.
        RecoveryError: for a threshold above the number of keys, or if the folder cannot be written.
    """
    share = _share(threshold, of)
    shares = {str(role): share for role in ROLES}
    make_folder(folder)
    with changing(folder):
        if any((folder / "public").glob("*.json")) or any((folder / "pending").glob("*.json")):
            raise FileExistsError(f"{folder} has a repository, and is not overwritten: choose another folder")
        root = Root(expires=expiry_of("root", now), consistent_snapshot=True)
        files, signers = _new_keys(root, folder, shares, passphrase)
        signed = Metadata(root)
        for signer in signers["root"]:
            signed.sign(signer, append=True)
        make_folder(folder / "public")
        _write_keys(folder, files)
        write(folder / "public" / "1.root.json", signed.to_bytes())
    return Repository(folder)


def _share(threshold: int, of: int) -> tuple[int, int]:
    if not 1 <= threshold <= of <= 15:
        raise RecoveryError(f"{threshold} of {of} keys: give a threshold from 1 to the number of keys, at most 15")
    return threshold, of


def _new_keys(
    root: Root, folder: Path, shares: Mapping[str, tuple[int, int]], passphrase: bytes
) -> tuple[dict[Path, tuple[bytes, int]], dict[str, list[CryptoSigner]]]:
    """Give the roles of an unsigned root new keys; returns the files of their private halves, and the signers."""
    files: dict[Path, tuple[bytes, int]] = {}
    signers: dict[str, list[CryptoSigner]] = {}
    for role, (threshold, of) in shares.items():
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


def _write_keys(folder: Path, files: Mapping[Path, tuple[bytes, int]]) -> None:
    """Write private halves. A file that exists is from a command that was killed, and no root names its key."""
    make_folder(folder / "keys", PRIVATE)
    for file in files:
        if file.exists():
            move_aside(file, folder / "superseded")
    try:
        with new_files(files):
            sync_folder(folder / "keys")
    except OSError as error:
        raise unwritable(folder / "keys", error) from None


class Repository:
    """One repository on the disk.

    Args:
        folder: where it is.

    Attributes:
        public: the folder of the signed files.
        keys: the folder of the private halves.
        files: the signed files.
        waiting: the files that wait for signatures.

    Raises:
        RecoveryError: if there is none, or its first root is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.public = folder / "public"
        self.keys = folder / "keys"
        self.superseded = folder / "superseded"
        self._place = folder / "published-to"
        self.files = SignedFiles(self.public)
        self.waiting = Waiting(folder / "pending", self.files)
        self._check_first_root()

    def _check_first_root(self) -> None:
        file = self.files.file("root", 1)
        if not file.exists() and not any(self.public.glob("*.json")):
            raise RecoveryError(f"there is no {file}: `dynpin recovery init` makes a repository")
        fault = self.files.first_root_fault()
        if fault is not None:
            copy = "FILE" if self.published_to is None else self.published_to / file.name
            raise RecoveryError(
                f"{fault}. Clients know your list by this very file: a new one is of no use to them. Put a copy of it "
                "back, from a backup or from the folder that is served. The right one gives the root that your "
                f"headers name:  openssl dgst -sha256 -binary {copy} | base64"
            )

    # -- reading ------------------------------------------------------------------------------------------------

    def recovery(self, uri: str) -> Recovery:
        """The recovery directives of a header: the digest of version 1 of the root, which never changes, and the URI.

        Raises:
            InvalidHeader: for a URI that is invalid in a header.
        """
        return Recovery(self.root_digest, uri)

    @property
    def root_digest(self) -> bytes:
        """The SHA-256 of version 1 of the root."""
        return hashlib.sha256(self.files.file("root", 1).read_bytes()).digest()

    def root(self) -> Metadata[Root]:
        """The newest complete root."""
        return self.files.root()

    def signed(self) -> dict[str, Signed]:
        """The complete files by role; a role that has signed nothing yet is missing."""
        return self.files.signed()

    def pins(self) -> PinList | None:
        """The current list, or None."""
        version = self.files.live_targets() or self.files.newest("targets")
        return self.files.pin_list(self.files.targets(version).signed) if version else None

    def pending(self) -> list[Pending]:
        """The files that wait for signatures, the root first."""
        return self.waiting.pending()

    @property
    def place(self) -> Path | None:
        """The folder that was published to last, which this machine may not have; None if there was none."""
        try:
            return Path(read_file(self._place).decode("utf-8"))
        except (OSError, ValueError):
            return None

    @property
    def published_to(self) -> Path | None:
        """The folder that was published to last, if this machine has it."""
        place = self.place
        return place if place is not None and place.is_dir() else None

    def remember_place(self, folder: Path) -> None:
        """Store where the files are published. Raises RecoveryError if it cannot be written."""
        if folder.absolute() != self.place:
            try:
                place = str(folder.absolute()).encode("utf-8")
            except UnicodeEncodeError:
                raise RecoveryError(f"{folder} has bytes in its name that are not UTF-8: name another folder") from None
            write(self._place, place)

    def next_version(self, role: str) -> int:
        """The next version to sign: above all that were signed here, and above those that were replaced."""
        here = self.files.newest(role)
        if role == "timestamp":
            timestamp = self.files.timestamp()
            here = 0 if timestamp is None else timestamp.signed.version
        return max(here, SignedFiles(self.superseded).newest(role)) + 1

    def changes(self, pins: PinList | None = None) -> list[str]:
        """The changes that signing now would make, to the root and to the list; one line for each.

        Args:
            pins: the list to sign; None for the pending one.

        Raises:
            RecoveryError: if a pending file cannot be read.
        """
        root, targets = self.waiting.root(), self.waiting.targets()
        lines = [] if root is None else key_differences(self.waiting.former_root(root), root.signed)
        if pins is None and targets is not None:
            pins = PinList.parse(self.waiting.list_data(targets))
        if pins is not None:
            lines += differences(self.pins(), pins) or [f"no change: {counted(len(pins.hosts), 'host')}, signed anew"]
        return lines

    # -- signing ------------------------------------------------------------------------------------------------

    def propose(self, pins: PinList, *, now: float, replace: bool = False, above: int = 0) -> None:
        """Begin a new list that waits for signatures. If the same list waits already, its signatures stay.

        Args:
            pins: the list.
            now: seconds since the epoch, UTC.
            replace: whether to drop another pending list with its signatures.
            above: a version that clients may have seen, such as that of a list that a thief has signed.

        Raises:
            Refused: if another pending list, with a version above `above`, has signatures.
            InvalidPinFile: if clients could not read it, for example because it is too long.
            RecoveryError: if the folder cannot be written.
        """
        with changing(self.folder):
            data = pins.to_bytes()
            PinList.parse(data)  # a list that clients cannot read must not be signed: it would block all later lists
            waiting = self.waiting.targets()
            if waiting is not None and not expires_soon("targets", waiting.signed, now):
                signed = next(each.signed for each in self.pending() if each.role == "targets")
                if self.waiting.list_data(waiting) == data and waiting.signed.version > above:
                    return
                # Clients that have seen `above` refuse the one that waits: nothing is lost with it.
                if signed and not replace and waiting.signed.version > above:
                    raise Refused(
                        f"another list waits, version {waiting.signed.version}; {counted(signed, 'key')} signed it: "
                        "`dynpin recovery sign` without a file adds yours; --replace gives it up, with its signatures"
                    )
            self._propose(data, now, (), above)

    def _propose(self, data: bytes, now: float, signers: Sequence[CryptoSigner], above: int = 0) -> None:
        target = TargetFile.from_data(PIN_LIST, data, ["sha256"])
        version, expires = max(self.next_version("targets"), above + 1), expiry_of("targets", now)
        targets = Metadata(Targets(version, expires=expires, targets={PIN_LIST: target}))
        for signer in signers:
            targets.sign(signer, append=True)
        self.waiting.keep_targets(targets, data)

    def propose_keys(
        self,
        roles: Iterable[str],
        *,
        threshold: int | None = None,
        of: int | None = None,
        passphrase: bytes,
        now: float,
        signers: Sequence[CryptoSigner] = (),
    ) -> list[Path]:
        """Begin a new root with new keys for these roles. It waits for signatures of the old root's keys and the new.

        Args:
            roles: the roles that get new keys.
            threshold: how many keys must sign root and list from now on; None for as many as before.
            of: how many keys there are for each; None for as many as before.
            passphrase: encrypts the private halves of root and targets.
            now: seconds since the epoch, UTC.
            signers: the old keys that are available; those of the root sign it. More signatures can follow.

        Returns:
            the files of the new private halves.

        Raises:
            Refused: if another root is pending; or if the list gets new keys and a signed list is pending.
            RecoveryError: for a threshold above the number of keys, or if the folder cannot be written.
        """
        roles = tuple(roles)
        with changing(self.folder):
            self._refuse_new_keys(roles)
            root = self.root()
            shares = {
                role: _share(
                    root.signed.roles[role].threshold if threshold is None or role not in OFFLINE else threshold,
                    len(root.signed.roles[role].keyids) if of is None or role not in OFFLINE else of,
                )
                for role in roles
            }
            root.signed.version += 1
            root.signed.expires = expiry_of("root", now)
            root.signatures.clear()
            former = self.root().signed.roles
            files, made = _new_keys(root.signed, self.folder, shares, passphrase)
            for signer in [*made.get("root", ()), *with_keys(signers, former["root"].keyids)]:
                root.sign(signer, append=True)
            pins = self.pins()
            _write_keys(self.folder, files)
            if "targets" in roles and pins is not None:  # a list that only the old keys have signed no longer counts
                both = [*made["targets"], *with_keys(signers, former["targets"].keyids)]
                self._propose(pins.to_bytes(), now, both)
            self.waiting.keep_root(root)
            return [*files]

    def _refuse_new_keys(self, roles: Sequence[str]) -> None:
        for each in self.pending():
            file = self.waiting.file(each.role)
            if each.role == "root":
                goes_on = "sign` adds them" if each.missing else "publish FOLDER` puts it in place"
                raise Refused(f"{each}: `dynpin recovery {goes_on}; to give it up, remove {file}")
            if each.signed and "targets" in roles:
                raise Refused(
                    f"version {each.version} of the list waits, and {counted(each.signed, 'key')} signed it, whose "
                    f"signature will count no more: publish it first, or give it up: remove {file}"
                )

    def add_signatures(self, signers: Sequence[CryptoSigner]) -> int:
        """Sign the pending files with all keys that may sign; returns how many signatures were added.

        Raises:
            RecoveryError: if the folder cannot be written.
        """
        added = 0
        with changing(self.folder):
            for role, waiting, unsigned in self.waiting.signable():
                new = [each for each in signers if each.public_key.keyid in unsigned]
                for signer in new:
                    waiting.sign(signer, append=True)
                added += self._keep_signatures(role, waiting, len(new))
        return added

    def merge(self, other: Repository) -> int:
        """Copy the signatures for pending files from another copy of this folder; returns how many were added.

        Raises:
            Refused: if it is not a copy, or if other files are pending there.
            RecoveryError: if a folder cannot be read or written.
        """
        if other.root_digest != self.root_digest:
            raise Refused(f"{other.folder} is no copy of {self.folder}: it begins with another root")
        added = 0
        with changing(self.folder):
            theirs = {role: there for role, there, _ in other.waiting.signable()}
            root, targets = other.waiting.root(), other.waiting.targets()
            mine = {role for role, _, _ in self.waiting.signable()}
            if targets is not None and not mine and targets.signed.version == self.next_version("targets"):
                self.waiting.keep_targets(targets, other.waiting.list_data(targets))
            if root is not None and not mine and root.signed.version == self.next_version("root"):
                self.waiting.keep_root(root)
            for role, waiting, unsigned in self.waiting.signable():
                there = theirs.get(role)
                if there is None:
                    continue
                if there.signed_bytes != waiting.signed_bytes:
                    raise Refused(
                        f"another version {there.signed.version} of {NAMES[role]} waits in {other.folder}, so its "
                        f"signatures count for nothing here: choose one, and remove pending/{role}.json of the other"
                    )
                new = [keyid for keyid, key in unsigned.items() if _has_signed(key, there)]
                waiting.signatures.update({keyid: there.signatures[keyid] for keyid in new})
                added += self._keep_signatures(role, waiting, len(new))
        return added

    def _keep_signatures(self, role: str, waiting: Metadata[Root] | Metadata[Targets], added: int) -> int:
        if added:
            write(self.waiting.file(role), waiting.to_bytes())
        return added


def _has_signed(key: Key, signed: Metadata[Root] | Metadata[Targets]) -> bool:
    try:
        key.verify_signature(signed.signatures[key.keyid], signed.signed_bytes)
    except (KeyError, UnverifiedSignatureError):
        return False
    return True
