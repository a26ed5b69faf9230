"""A folder of signed files, and whether a client would accept them as complete.

The operator's own folder has one, and so has the web server. Both are plain TUF with consistent snapshots. The current
state is the one that ``timestamp.json`` leads to: it names a snapshot, and the snapshot names the list.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from securesystemslib.exceptions import StorageError
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Signed, Snapshot, Targets, Timestamp  # pyright: ignore[reportPrivateImportUsage]

from dynpin.clientstore.recovery import LONGEST_FILE
from dynpin.errors import RecoveryError
from dynpin.pin_list import PIN_LIST, PinList

__all__ = ["NAMES", "Refused", "SignedFiles", "Versioned", "is_list_of", "is_signed", "list_name", "read"]

_Signed = TypeVar("_Signed", Root, Snapshot, Targets, Timestamp)
# The roles with the version in the names of their files.
Versioned = Metadata[Root] | Metadata[Targets] | Metadata[Snapshot]

# The content that each role signs, in a person's words.
NAMES = {"root": "the root", "targets": "the list", "snapshot": "the snapshot", "timestamp": "the timestamp"}


class Refused(RecoveryError):
    """An action that would harm clients, and was not done; the message says why, and what to do instead."""


def list_name(targets: Targets) -> str:
    """The name of the list's file. It contains the digest, so old and new lists can be in the same folder."""
    return f"{targets.targets[PIN_LIST].hashes['sha256']}.{PIN_LIST}"


def is_signed(root: Root, role: str, signed: Versioned | Metadata[Timestamp]) -> bool:
    """Whether enough of the keys that this root has for the role have signed it."""
    return root.get_verification_result(role, signed.signed_bytes, signed.signatures).verified


def is_list_of(targets: Targets, data: bytes) -> bool:
    """Whether this is the content of the signed list."""
    return hashlib.sha256(data).hexdigest() == targets.targets[PIN_LIST].hashes["sha256"]


def read(file: Path, kind: type[_Signed]) -> Metadata[_Signed]:
    """Read one file.

    Raises:
        RecoveryError: if it cannot be read, or has another type.
    """
    # Somebody who can write to the served folder may put a pipe there, or an endless file.
    if file.exists() and (not file.is_file() or file.stat().st_size > LONGEST_FILE):
        raise RecoveryError(
            f"{file} is no file of up to {LONGEST_FILE} bytes, which clients read. Put a copy of it back"
        )
    try:
        found: Metadata[_Signed] = Metadata.from_file(str(file))  # pyright: ignore[reportUnknownVariableType] - its Self is bare
    except (RepositoryError, StorageError, ValueError) as error:
        raise RecoveryError(f"{file} cannot be read: {error}. Put a copy of it back") from None
    if found.signed.type != kind.type:
        raise RecoveryError(f"{file} is {found.signed.type}, not {kind.type}. Put a copy of it back")
    return found


class SignedFiles:
    """The signed files in one folder.

    Args:
        folder: the folder of the files; it may be missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    # -- files ----------------------------------------------------------------------------------------------------

    def versions(self, role: str) -> list[int]:
        """The versions of a role in this folder, in order. The timestamp has one file for all versions."""
        names = [path.name.partition(".")[0] for path in self.folder.glob(f"*.{role}.json")]
        return sorted(int(name) for name in names if name.isascii() and name.isdecimal())

    def newest(self, role: str) -> int:
        """The highest version of root, list or snapshot; 0 if there is none."""
        return max(self.versions(role), default=0)

    def file(self, role: str, version: int = 0) -> Path:
        """The file of a role's version."""
        return self.folder / ("timestamp.json" if role == "timestamp" else f"{version}.{role}.json")

    def root(self, version: int = 0) -> Metadata[Root]:
        """A root, by default the newest. Raises RecoveryError if it cannot be read."""
        return read(self.file("root", version or self.newest("root")), Root)

    def first_root_fault(self) -> str | None:
        """Why version 1 of the root is none that clients can begin with, in words; None if it is."""
        file = self.file("root", 1)
        if not file.exists():
            return f"{file} is missing"
        try:
            root = self.root(1)
            is_own = root.signed.get_root_verification_result(None, root.signed_bytes, root.signatures).verified
        except (RecoveryError, ValueError):
            return f"{file} is damaged: it is no root"
        return None if is_own and root.signed.version == 1 else f"{file} is damaged: its own keys have not signed it"

    def targets(self, version: int = 0) -> Metadata[Targets]:
        """The signed description of the list, by default the newest. Raises RecoveryError if it cannot be read."""
        return read(self.file("targets", version or self.newest("targets")), Targets)

    def snapshot(self, version: int = 0) -> Metadata[Snapshot]:
        """A snapshot, by default the newest. Raises RecoveryError if it cannot be read."""
        return read(self.file("snapshot", version or self.newest("snapshot")), Snapshot)

    def of_role(self, role: str, version: int) -> Versioned:
        """A root, list or snapshot, by its role. Raises RecoveryError if it cannot be read."""
        match role:
            case "root":
                return self.root(version)
            case "targets":
                return self.targets(version)
            case _:
                return self.snapshot(version)

    def timestamp(self) -> Metadata[Timestamp] | None:
        """The timestamp, or None. Raises RecoveryError if it cannot be read."""
        file = self.file("timestamp")
        return read(file, Timestamp) if file.is_file() else None

    def pin_list(self, targets: Targets) -> PinList:
        """The list itself.

        Raises:
            RecoveryError: if its file is missing, or is another list.
            InvalidPinFile: if it is not a list.
        """
        file = self.folder / "targets" / list_name(targets)
        if not file.is_file():
            raise RecoveryError(f"{file} is missing. Put a copy of it back")
        data = file.read_bytes() if file.stat().st_size == targets.targets[PIN_LIST].length else b""
        if not is_list_of(targets, data):
            raise RecoveryError(f"{file} is not the list that was signed. Put a copy of it back")
        return PinList.parse(data)

    # -- the current state ------------------------------------------------------------------------------------------

    def live_targets(self) -> int:
        """The version of the list that the timestamp leads to; 0 if there is none."""
        try:
            timestamp = self.timestamp()
            if timestamp is None:
                return 0
            return self.snapshot(timestamp.signed.snapshot_meta.version).signed.meta["targets.json"].version
        except RecoveryError:
            return 0

    def signed(self) -> dict[str, Signed]:
        """The newest of each role; a role that has signed nothing yet is missing.

        Raises:
            RecoveryError: if a file cannot be read.
        """
        found: dict[str, Signed] = {"root": self.root().signed}
        if self.newest("targets"):
            found["targets"] = self.targets().signed
        if self.newest("snapshot"):
            found["snapshot"] = self.snapshot().signed
        timestamp = self.timestamp()
        if timestamp is not None:
            found["timestamp"] = timestamp.signed
        return found

    def faults(self) -> tuple[str, ...]:
        """Why a client would not find a complete and current list here: one sentence each; empty if all is well.

        :func:`~dynpin.deploy.recovery.expiries` reports what has expired.
        """
        found: list[str] = []
        try:
            found.extend(self._faults())
        except (RecoveryError, ValueError) as error:
            found.append(str(error))
        return tuple(dict.fromkeys(found))

    def _faults(self) -> Iterator[str]:
        yield from self.root_faults()
        root, timestamp = self.root().signed, self.timestamp()
        if timestamp is None:
            yield f"there is no {self.file('timestamp')}"
            return
        if not is_signed(root, "timestamp", timestamp):
            yield f"{self.file('timestamp')} is signed by too few of the keys that the root names"
        version = timestamp.signed.snapshot_meta.version
        snapshot = self.snapshot(version)
        yield from self._faults_of(root, "snapshot", version, snapshot)
        version = snapshot.signed.meta["targets.json"].version
        targets = self.targets(version)
        yield from self._faults_of(root, "targets", version, targets)
        self.pin_list(targets.signed)

    def _faults_of(self, root: Root, role: str, version: int, found: Versioned) -> Iterator[str]:
        """What is wrong with the version of a role that clients are led to."""
        file, newest = self.file(role, version), self.newest(role)
        if not is_signed(root, role, found):
            yield f"{file} is signed by too few of the keys that the root names"
        if found.signed.version != version:
            yield f"{file} is version {found.signed.version}"
        if newest > version:
            yield f"clients are led to {file}, although there is version {newest}"

    def root_faults(self) -> Iterator[str]:
        """The faults in the chain of roots: each root needs signatures by the former root's keys and by its own."""
        before: Root | None = None
        for version in range(1, self.newest("root") + 1):
            if not self.file("root", version).is_file():
                yield f"{self.file('root', version)} is missing. Put a copy of it back: clients walk from version 1 on"
                return
            root = self.root(version)
            if root.signed.version != version:
                yield f"{self.file('root', version)} is version {root.signed.version}"
                return
            if not root.signed.get_root_verification_result(before, root.signed_bytes, root.signatures).verified:
                yield f"{self.file('root', version)} is signed by too few keys"
            before = root.signed
        if before is None:
            yield f"there is no {self.file('root', 1)}"
