"""Pending files that wait for signatures: a new root, a new list, or both. A killed process may have moved one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tuf.api.metadata import Key, Metadata, Root, Targets  # pyright: ignore[reportPrivateImportUsage]

from dynpin.counts import counted
from dynpin.errors import RecoveryError

from .signed_files import NAMES, SignedFiles, is_list_of, is_signed, list_name, read
from .storage import make_folder, write

__all__ = ["Pending", "Waiting"]

_Signed = TypeVar("_Signed", Root, Targets)


@dataclass(frozen=True, slots=True)
class Pending:
    """A file that waits for signatures.

    Attributes:
        role: ``"root"`` or ``"targets"``.
        version: the version that it will have.
        missing: how many signatures are still needed.
        signed: how many signatures count now.
    """

    role: str
    version: int
    missing: int
    signed: int

    def __str__(self) -> str:
        needs = f"needs {counted(self.missing, 'more signature')}" if self.missing else "is signed by enough keys"
        return f"version {self.version} of {NAMES[self.role]} {needs}"


class Waiting:
    """The folder of pending files.

    Args:
        folder: its path; it may be missing.
        files: the complete files.
    """

    def __init__(self, folder: Path, files: SignedFiles) -> None:
        self.folder = folder
        self._files = files

    def file(self, role: str) -> Path:
        """The pending file of a role."""
        return self.folder / f"{role}.json"

    def root(self) -> Metadata[Root] | None:
        """The pending root, until the key that it names has signed a timestamp."""
        file, newest = self.file("root"), self._files.newest("root")
        root = read(file, Root) if file.is_file() else None
        if root is None or root.signed.version > newest:
            return root if root is not None and root.signed.version == newest + 1 else None
        is_moved = root.signed.version == newest and self._files.root().signed_bytes == root.signed_bytes
        timestamp = self._files.timestamp()
        is_live = timestamp is not None and is_signed(root.signed, "timestamp", timestamp)
        return root if is_moved and not is_live else None

    def targets(self) -> Metadata[Targets] | None:
        """The signed description of the pending list, until the timestamp leads to it."""
        file, newest = self.file("targets"), self._files.newest("targets")
        targets = read(file, Targets) if file.is_file() else None
        if targets is None or targets.signed.version > newest:
            return targets
        is_moved = targets.signed.version == newest and self._files.targets().signed_bytes == targets.signed_bytes
        return targets if is_moved and self._files.live_targets() < newest else None

    def coming_root(self) -> Root:
        """The pending root, else the newest."""
        return (self.root() or self._files.root()).signed

    def former_root(self, waiting: Metadata[Root]) -> Root:
        """The root whose keys must sign the pending one."""
        return self._files.root(waiting.signed.version - 1).signed

    def pending(self) -> list[Pending]:
        """The pending files, the root first."""
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
        """The pending files by role, each with the keys that may still sign; a wrong signature does not count."""
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
        """Store a pending root. Raises RecoveryError if it cannot be written."""
        make_folder(self.folder)
        write(self.file("root"), root.to_bytes())

    def keep_targets(self, targets: Metadata[Targets], data: bytes) -> None:
        """Store a pending list; `data` is its file. Raises RecoveryError if it cannot be written."""
        make_folder(self.folder)
        write(self.folder / list_name(targets.signed), data)
        write(self.file("targets"), targets.to_bytes())

    def list_data(self, targets: Metadata[Targets]) -> bytes:
        """The file of the pending list. Raises RecoveryError if it is missing, or is another list."""
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
        """Remove the files that have been published. This comes last, so that a killed step can be run again."""
        for file in self.folder.glob("*.json"):
            file.unlink()
