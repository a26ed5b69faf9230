"""Commits that reach the disk together: who has written waits for the disk behind the write lock, not under it.

With ``synchronous=FULL`` SQLite waits for the disk while it holds the write lock, so that eight processes wait one
after the other. With ``NORMAL`` it keeps all of the order that makes a file whole after a power failure
(https://sqlite.org/wal.html): the -wal is synced before it is merged into the file, and its checksums end it where
something is missing. What is missing then is its end, of which nobody may have been told: so the writer syncs the -wal
itself before it returns, and the disk joins the syncs of all who wait at the same time.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from io import FileIO
from mmap import mmap
from pathlib import Path

from dynpin.clientstore.past_sqlite import HEAD

__all__ = ["Log", "log_of"]

# A part of the log's header that is drawn anew whenever the log begins anew, and its copy in the wal-index
# (https://sqlite.org/walformat.html, sections 2.2 and 4).
_SALTS_AT = 16
_SALTS = slice(32, 40)

# As SQLite does where there is no fdatasync.
_sync: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)


class Log:
    """The -wal of one connection, open to be synced. SQLite takes no lock on it, so its descriptors may be closed."""

    def __init__(self, file: FileIO, index: mmap) -> None:
        self._file = file
        self._index = index
        # The head of the wal-index with the last commit that is known to be on the disk.
        self.on_disk = b""
        self.is_certain = False

    def make_certain(self, head: bytes) -> bool:
        """Whether this is the very file that SQLite writes to, and not another one that was put in its place.

        It cannot be told before something is written to it; and once told, it stays, as both hold the file open.

        Args:
            head: that of the wal-index behind a commit that SQLite has synced.
        """
        salts = os.pread(self._file.fileno(), 8, _SALTS_AT)
        self.is_certain = len(salts) == 8 and salts == head[_SALTS]
        if self.is_certain:
            self.on_disk = head
        return self.is_certain

    def is_settled(self) -> bool:
        """Whether every commit, by whomever, is on the disk."""
        return self._index[HEAD] == self.on_disk

    def waiting(self) -> Callable[[], None] | None:
        """What waits until the commits up to now are on the disk, however they came; None where they are."""
        head = self._index[HEAD]
        if head == self.on_disk:
            return None
        # Waited for without a lock: meanwhile another thread may close the log.
        descriptor = os.dup(self._file.fileno())

        def wait() -> None:
            try:
                _sync(descriptor)
            finally:
                os.close(descriptor)
            self.on_disk = head

        return wait

    def close(self) -> None:
        """Close the descriptor."""
        self._file.close()


def log_of(database: Path, index: mmap | None) -> Log | None:
    """The log of a database that this process has open; None where there is none to sync."""
    if index is None or sys.platform == "win32":
        return None
    with suppress(OSError):
        return Log(FileIO(os.path.realpath(database) + "-wal"), index)
    return None
