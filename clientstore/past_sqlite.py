"""What is read of SQLite's files past SQLite: the first bytes of a database, and whether anybody has written to it.

POSIX drops all locks of a process on a file as soon as the process closes any descriptor of it, those of SQLite's
connections too: another process would then take itself for the last one, and remove the -wal under the feet of this
one. So what was opened here stays open, one descriptor for each file, until the file is removed.
"""

from __future__ import annotations

import mmap
import os
import sys
import threading
from pathlib import Path

__all__ = ["HEAD", "commits", "first_bytes", "wal_index"]

# The head of the wal-index: two copies of 48 bytes. SQLite writes the second one first, and takes no commit for done
# before they are equal (https://sqlite.org/walformat.html, section 2.2).
HEAD = slice(0, 96)
# Its first number, in the byte order of the machine: what is laid out in another way is left alone.
_VERSION = (3_007_000).to_bytes(4, sys.byteorder)

_Identity = tuple[int, int]
# Held for all that is done with the two below: a descriptor that another thread closed may be another file's by now.
_lock = threading.Lock()
_held: dict[_Identity, int] = {}
_mapped: dict[_Identity, mmap.mmap] = {}


def first_bytes(path: Path, count: int) -> bytes:
    """The first bytes of a file, which SQLite may have open.

    Raises:
        OSError: where it cannot be read.
    """
    if sys.platform == "win32":  # where locks belong to a descriptor, and a file that is open cannot be removed
        with path.open("rb") as file:
            return file.read(count)
    with _lock:
        return os.pread(_hold(path)[1], count, 0)


def wal_index(database: Path) -> mmap.mmap | None:
    """The wal-index of a database that this process has open; None where there is none to look at.

    ``PRAGMA data_version`` takes two system calls, and 50 µs behind the arithmetic of a handshake; a look at the
    head of the wal-index takes two. It is what SQLite itself looks at: every commit, by whichever process, changes it.
    A process that was forked may go on reading it.
    """
    if sys.platform == "win32":
        return None
    path = Path(os.path.realpath(database) + "-shm")  # SQLite follows a symbolic link too
    with _lock:
        try:
            if path.stat().st_size < HEAD.stop:
                return None
            identity, descriptor = _hold(path)
        except OSError:  # the journal mode is another than WAL
            return None
        memory = _mapped.get(identity)
        if memory is None:
            memory = mmap.mmap(descriptor, HEAD.stop, access=mmap.ACCESS_READ)  # has a descriptor of its own
            _mapped[identity] = memory
    return memory if memory[:4] == _VERSION else None


def commits(head: bytes) -> int:
    """The count of commits in a head, which begins anew after 2**32, or when the -wal is recovered."""
    return int.from_bytes(head[8:12], sys.byteorder)


def _hold(path: Path) -> tuple[_Identity, int]:
    for identity, descriptor in tuple(_held.items()):
        if os.fstat(descriptor).st_nlink == 0:
            del _held[identity]
            os.close(descriptor)
            _mapped.pop(identity, None)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC) if (known := _known(path)) is None else known
    status = os.fstat(descriptor)
    return (status.st_dev, status.st_ino), _held.setdefault((status.st_dev, status.st_ino), descriptor)


def _known(path: Path) -> int | None:
    status = path.stat()
    return _held.get((status.st_dev, status.st_ino))


if hasattr(os, "register_at_fork"):
    # Taken behind those of the stores, which register later: who holds a store may want this one, never the reverse.
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
