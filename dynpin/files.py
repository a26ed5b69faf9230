"""Read the files that a person names, with limits, so that no command and no server waits for ever."""

from __future__ import annotations

import errno
import os
import stat

__all__ = ["LONGEST_FILE", "no_writer", "open_at_once", "read_file"]

# In bytes. Keys, chains and dynpin.toml have kilobytes; a bundle of all public roots has a quarter of a megabyte.
LONGEST_FILE = 16 << 20


def open_at_once(path: str | os.PathLike[str]) -> int:
    """Open a file, and do not wait for the writer of a FIFO. If there is none, reading ends at once."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if hasattr(os, "O_NONBLOCK"):
        os.set_blocking(handle, True)
    return handle


def no_writer(handle: int, path: str | os.PathLike[str]) -> OSError | None:
    """The error for a file in which there is nothing, if it is a pipe; else None."""
    if stat.S_ISFIFO(os.fstat(handle).st_mode):
        return OSError(errno.EPIPE, "nothing writes to this pipe: start its writer first", os.fspath(path))
    return None


def read_file(path: str | os.PathLike[str], longest: int = LONGEST_FILE) -> bytes:
    """The content of a file.

    Raises:
        OSError: if it cannot be read, is larger than `longest` bytes, or is a pipe that nothing writes to.
    """
    handle = open_at_once(path)
    try:
        # A folder can be opened, and fails now. Errors of a handle name no file, or its number.
        with os.fdopen(handle, "rb", closefd=False) as file:
            data = file.read(longest + 1)
        silence = None if data else no_writer(handle, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(path)) from None
    finally:
        os.close(handle)
    if silence is not None:
        raise silence
    if len(data) > longest:
        raise OSError(errno.EFBIG, f"it is larger than {longest >> 20} MiB; name another file", os.fspath(path))
    return data
