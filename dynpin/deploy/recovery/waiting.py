"""What waits for signatures: a new root, a new list, or both. A process that was killed may have moved it already."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tuf.api.metadata import Key, Metadata, Root, Targets  # pyright: ignore[reportPrivateImportUsage]

from dynpin.errors import RecoveryError

from .signed_files import NAMES, SignedFiles, is_list_of, is_signed, list_name, read
from .storage import make_folder, write

__all__ = ["Pending", "Waiting", "count"]

_Signed = TypeVar("_Signed", Root, Targets)


def count(number: int, what: str) -> str:
    """A number of things: ``"1 key"``, ``"2 keys"``."""
    return f"{number} {what}{'' if number == 1 else 's'}"


@dataclass(frozen=True, slots=True)
class Pending:
    """What waits for signatures.

    Attributes:
        role: ``"root"`` or ``"targets"``.
        version: the version that it will be.
        missing: how many signatures are needed still.
        signed: how many signatures count by now.
    """

    role: str
    version: int
    missing: int
    signed: int

    def __str__(self) -> str:
        needs = f"needs {count(self.missing, 'more signature')}" if self.missing else "is signed by enough keys"
        return f"version {self.version} of {NAMES[self.role]} {needs}"


class Waiting:
    """The folder of what waits.

    Args:
        folder: where it is; it may be missing.
        files: what is complete.
    """

    def __init__(self, folder: Path, files: SignedFiles) -> None:
        self.folder = folder
        self._files = files

    def file(self, role: str) -> Path:
        """Where what waits of a role is."""
        return self.folder / f"{role}.json"

    def root(self) -> Metadata[Root] | None:
        """The root that waits, until a timestamp is signed by the key that it names."""
        file, newest = self.file("root"), self._files.newest("root")
        root = read(file, Root) if file.is_file() else None
        if root is None or root.signed.version > newest:
            return root if root is not None and root.signed.version == newest + 1 else None
        is_moved = root.signed.version == newest and self._files.root().signed_bytes == root.signed_bytes
        timestamp = self._files.timestamp()
        is_live = timestamp is not None and is_signed(root.signed, "timestamp", timestamp)
        return root if is_moved and not is_live else None

    def targets(self) -> Metadata[Targets] | None:
        """What names the list that waits, until the timestamp leads to it."""
        file, newest = self.file("targets"), self._files.newest("targets")
        targets = read(file, Targets) if file.is_file() else None
        if targets is None or targets.signed.version > newest:
            return targets
        is_moved = targets.signed.version == newest and self._files.targets().signed_bytes == targets.signed_bytes
        return targets if is_moved and self._files.live_targets() < newest else None

    def coming_root(self) -> Root:
        """The root that waits, else the newest."""
        return (self.root() or self._files.root()).signed

    def former_root(self, waiting: Metadata[Root]) -> Root:
        """The root whose keys must sign the one that waits."""
        return self._files.root(waiting.signed.version - 1).signed

    def pending(self) -> list[Pending]:
        """What waits, the root first."""
        found: list[Pending] = []
        root, targets = self.root(), self.targets()
        if root is not None:
            both = root.signed.get_root_verification_result(self.former_root(root), root.signed_bytes, root.signatures)
            missing = max(both.first.missing, both.second.missing)
            found.append(Pending("root", root.signed.version, missing, len(both.signed)))
        if targets is not None:
            signed = self.coming_root().get_verification_result("targets", targets.signed_bytes, targets.signatures)
            found.append(Pending("targets", targets.signed.version, signed.missing, len(signed.signed)))
        return found

    def signable(self) -> list[tuple[str, Metadata[Root] | Metadata[Targets], dict[str, Key]]]:
        """What waits by role, each with the keys that may sign and have not: a signature that is wrong is none."""
        found: list[tuple[str, Metadata[Root] | Metadata[Targets], dict[str, Key]]] = []
        root, targets, coming = self.root(), self.targets(), self.coming_root()
        if root is not None:
            both = root.signed.get_root_verification_result(self.former_root(root), root.signed_bytes, root.signatures)
            found.append(("root", root, both.unsigned))
        if targets is not None:
            signed = coming.get_verification_result("targets", targets.signed_bytes, targets.signatures)
            found.append(("targets", targets, signed.unsigned))
        return found

    def keep_root(self, root: Metadata[Root]) -> None:
        """Have a root wait. Raises RecoveryError where it cannot be written."""
        make_folder(self.folder)
        write(self.file("root"), root.to_bytes())

    def keep_targets(self, targets: Metadata[Targets], data: bytes) -> None:
        """Have a list wait; `data` is its file. Raises RecoveryError where it cannot be written."""
        make_folder(self.folder)
        write(self.folder / list_name(targets.signed), data)
        write(self.file("targets"), targets.to_bytes())

    def list_data(self, targets: Metadata[Targets]) -> bytes:
        """The file of the list that waits. Raises RecoveryError where it is missing, or another one."""
        name = list_name(targets.signed)
        moved = self._files.folder / "targets" / name
        file = moved if moved.is_file() else self.folder / name
        data = file.read_bytes() if file.is_file() else b""
        if not is_list_of(targets.signed, data):
            raise RecoveryError(
                f"{file} is not the list that waits for signatures. Put a copy of it back; or give that list up: "
                f"remove {self.file('targets')}"
            )
        return data

    def clear(self) -> None:
        """Remove what has been published. It goes last, so that a step which was cut off can be run again."""
        for file in self.folder.glob("*.json"):
            file.unlink()
