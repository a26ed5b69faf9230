"""Whether anybody has written to a store, told without asking SQLite: by the head of its wal-index in shared memory.

``PRAGMA data_version`` takes two system calls and, behind the arithmetic of a handshake, 50 µs; this takes two. What
SQLite itself looks at is the head of the wal-index: every commit, by whichever process, changes it
(https://sqlite.org/walformat.html, section 2.2). It stays mapped here, and any change of it has SQLite asked.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
from pathlib import Path

__all__ = ["HEAD", "wal_index"]

# Two copies of 48 bytes. SQLite writes the second one first, and takes no commit for done before they are equal.
HEAD = slice(0, 96)
# The first number of the head, in the byte order of the machine: what is laid out in another way is left alone.
_VERSION = (3_007_000).to_bytes(4, sys.byteorder)

# POSIX drops all locks of a process on a file as soon as it closes any descriptor of it, SQLite's own included; so
# what was mapped once stays open until the last connection of all processes is gone, which removes the file.
_mapped: list[tuple[int, mmap.mmap]] = []


def wal_index(database: Path) -> mmap.mmap | None:
    """The wal-index of a database that this process has open; None where there is none to look at.

    A process that was forked may go on reading it.
    """
    if sys.platform == "win32":  # where a file that is mapped cannot be removed
        return None
    _unmap_the_removed()
    try:
        path = os.path.realpath(database) + "-shm"
        wanted = os.stat(path)
        memory = next((held for file, held in tuple(_mapped) if os.path.samestat(os.fstat(file), wanted)), None)
        if memory is None and wanted.st_size >= HEAD.stop:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            # It has a descriptor of its own, so it must live as long.
            memory = mmap.mmap(descriptor, HEAD.stop, access=mmap.ACCESS_READ)
            _mapped.append((descriptor, memory))
    except OSError:  # the journal mode is another than WAL
        return None
    return memory if memory is not None and memory[:4] == _VERSION else None


def _unmap_the_removed() -> None:
    for entry in tuple(_mapped):
        if os.fstat(entry[0]).st_nlink == 0:
            with contextlib.suppress(ValueError):  # another thread was first
                _mapped.remove(entry)
                os.close(entry[0])
