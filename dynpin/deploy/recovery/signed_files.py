"""A folder of signed files: what is in it, and whether a client would find it whole.

The operator's own folder has one, and the web server another. Both are plain TUF with consistent snapshots. What holds
is what ``timestamp.json`` leads to: it names a snapshot, and that names the list.
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
# What lies in a file with its version in its name.
Versioned = Metadata[Root] | Metadata[Targets] | Metadata[Snapshot]

# What a role signs, as a person calls it.
NAMES = {"root": "the root", "targets": "the list", "snapshot": "the snapshot", "timestamp": "the timestamp"}


class Refused(RecoveryError):
    """What would harm clients, and was not done: the message says why, and what to do instead."""


def list_name(targets: Targets) -> str:
    """The name of the list's file: its digest stands in it, so that old and new lie side by side."""
    return f"{targets.targets[PIN_LIST].hashes['sha256']}.{PIN_LIST}"


def is_signed(root: Root, role: str, signed: Versioned | Metadata[Timestamp]) -> bool:
    """Whether enough keys that this root names for the role have signed it."""
    return root.get_verification_result(role, signed.signed_bytes, signed.signatures).verified


def is_list_of(targets: Targets, data: bytes) -> bool:
    """Whether this is the file of the list that was signed."""
    return hashlib.sha256(data).hexdigest() == targets.targets[PIN_LIST].hashes["sha256"]


def read(file: Path, kind: type[_Signed]) -> Metadata[_Signed]:
    """Read one file.

    Raises:
        RecoveryError: where it cannot be read, or is something else.
    """
    # Who can write to the folder that is served may lay down a pipe there, or what never ends.
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
        folder: where they are; it may be missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    # -- what is there --------------------------------------------------------------------------------------------

    def versions(self, role: str) -> list[int]:
        """The versions of a role that lie here, in their order; of the timestamp there is one file for all."""
        names = [path.name.partition(".")[0] for path in self.folder.glob(f"*.{role}.json")]
        return sorted(int(name) for name in names if name.isascii() and name.isdecimal())

    def newest(self, role: str) -> int:
        """The highest version of root, list or snapshot; 0 where there is none."""
        return max(self.versions(role), default=0)

    def file(self, role: str, version: int = 0) -> Path:
        """Where a version of a role is."""
        return self.folder / ("timestamp.json" if role == "timestamp" else f"{version}.{role}.json")

    def root(self, version: int = 0) -> Metadata[Root]:
        """A root, by default the newest. Raises RecoveryError where it cannot be read."""
        return read(self.file("root", version or self.newest("root")), Root)

    def targets(self, version: int = 0) -> Metadata[Targets]:
        """What names the list, by default the newest. Raises RecoveryError where it cannot be read."""
        return read(self.file("targets", version or self.newest("targets")), Targets)

    def snapshot(self, version: int = 0) -> Metadata[Snapshot]:
        """A snapshot, by default the newest. Raises RecoveryError where it cannot be read."""
        return read(self.file("snapshot", version or self.newest("snapshot")), Snapshot)

    def of_role(self, role: str, version: int) -> Versioned:
        """A root, list or snapshot, by its role. Raises RecoveryError where it cannot be read."""
        match role:
            case "root":
                return self.root(version)
            case "targets":
                return self.targets(version)
            case _:
                return self.snapshot(version)

    def timestamp(self) -> Metadata[Timestamp] | None:
        """The timestamp, or None. Raises RecoveryError where it cannot be read."""
        file = self.file("timestamp")
        return read(file, Timestamp) if file.is_file() else None

    def pin_list(self, targets: Targets) -> PinList:
        """The list that this names.

        Raises:
            RecoveryError: where its file is missing, or another one.
            InvalidPinFile: where it is no list.
        """
        file = self.folder / "targets" / list_name(targets)
        if not file.is_file():
            raise RecoveryError(f"{file} is missing. Put a copy of it back")
        data = file.read_bytes() if file.stat().st_size == targets.targets[PIN_LIST].length else b""
        if not is_list_of(targets, data):
            raise RecoveryError(f"{file} is not the list that was signed. Put a copy of it back")
        return PinList.parse(data)

    # -- what holds -------------------------------------------------------------------------------------------------

    def live_targets(self) -> int:
        """The version of the list that the timestamp leads to; 0 where it leads to none."""
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
            RecoveryError: where one cannot be read.
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
        """Why a client would not find a whole and present list here: a sentence each; none where all is well.

        Whether something has expired is told by :func:`~dynpin.deploy.recovery.expiries`.
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
        """Where the roots are no chain from version 1 on, each signed by enough keys of the former and of its own."""
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
