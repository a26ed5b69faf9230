"""Watching files, so that a header follows its keys and no request ever waits for a disk."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from .background import BackgroundLoop

__all__ = ["Signature", "Watched", "Watcher", "signature", "watcher"]

Signature = tuple[tuple[int, ...] | None, ...]


class Watched(Protocol):
    """What is made from files, and can be made again."""

    @property
    def made_from(self) -> Signature:
        """The signature of the files when they were read last."""
        ...

    def signature(self) -> Signature:
        """The signature of the files now."""
        ...

    def refresh(self) -> bool:
        """Read the files; True if that changed anything. Raises nothing that a file can cause."""
        ...


def signature(paths: Iterable[Path]) -> Signature:
    """What tells a changed file from an unchanged one; None for a missing one. Symbolic links are followed."""
    return tuple(map(_status, paths))


def _status(path: Path) -> tuple[int, ...] | None:
    try:
        status = path.stat()
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return None
    # The inode tells a file that was moved into place, the time of the inode one whose own time was set back.
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class Watcher(BackgroundLoop[Watched, Signature]):
    """Looks at files, and has read again what has changed and since stood still.

    A change is taken at the look after the one that saw it, if nothing has moved in between: a file is not read while
    it is being written, nor a new backup key without the new chain that is copied right after it.

    Args:
        interval: seconds between two looks.
    """

    def __init__(self, interval: float = 0.5) -> None:
        super().__init__("dynpin-policy-watcher", interval)

    def add(self, watched: Watched) -> None:
        """Watch this for as long as it lives; twice is once."""
        self.include(watched, watched.made_from)

    def look_at(self, member: Watched, before: Signature) -> Signature:
        """Have the member refreshed where its files have changed and since stood still."""
        now = member.signature()
        if now == before != member.made_from:
            member.refresh()
        return now


watcher = Watcher()
watcher.survive_forks()
