"""Watch files, so that a header follows its keys, and no request waits for a disk."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from .background import BackgroundLoop

__all__ = ["Signature", "Watched", "Watcher", "signature", "watcher"]

Signature = tuple[tuple[int, ...] | None, ...]


class Watched(Protocol):
    """An object that is made from files, and can be made again."""

    @property
    def made_from(self) -> Signature:
        """The signature of the files at the last read."""
        ...

    def signature(self) -> Signature:
        """The current signature of the files."""
        ...

    def refresh(self) -> bool:
        """Read the files. True if this changed anything. A file must not make it raise."""
        ...


def signature(paths: Iterable[Path]) -> Signature:
    """A value for each file that differs if the file has changed; None if it is missing. Follows symbolic links."""
    return tuple(map(_status, paths))


def _status(path: Path) -> tuple[int, ...] | None:
    try:
        status = path.stat()
    except (OSError, ValueError):  # ValueError: not a possible file name
        return None
    # The inode shows a file that was moved here; the time of the inode shows a file whose own time was set back.
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class Watcher(BackgroundLoop[Watched, Signature]):
    """Looks at files, and has them read again when they have changed and are stable.

    A change counts at the next look, if nothing else has changed until then. So a file is not read while it is being
    written, and a new backup key is not read without the new chain that is copied right after it.

    Args:
        interval: seconds between two looks.
    """

    def __init__(self, interval: float = 0.5) -> None:
        super().__init__("dynpin-policy-watcher", interval)

    def add(self, watched: Watched) -> None:
        """Watch this object as long as it exists. A second call does nothing."""
        self.include(watched, watched.made_from)

    def look_at(self, member: Watched, before: Signature) -> Signature:
        """Refresh the member if its files have changed and are stable."""
        now = member.signature()
        if now == before != member.made_from:
            member.refresh()
        return now


watcher = Watcher()
watcher.survive_forks()
