"""Files as an operator may leave them: read with bounds, so that no server waits for ever at its start."""

from __future__ import annotations

import errno
import os
from pathlib import Path

__all__ = ["LONGEST_FILE", "read_file"]

# In bytes. Keys, chains and dynpin.toml have kilobytes, and a bundle of all public roots a quarter of one.
LONGEST_FILE = 16 << 20


def read_file(path: Path, longest: int = LONGEST_FILE) -> bytes:
    """The content of a file; of a pipe that nobody writes to, nothing.

    Raises:
        OSError: if it cannot be read, or holds more bytes than `longest`.
    """
    # Opening a FIFO would wait for a writer. Once it is open, reading it ends at once where there is none.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(handle, "rb") as file:
        if hasattr(os, "O_NONBLOCK"):
            os.set_blocking(handle, True)
        data = file.read(longest + 1)
    if len(data) > longest:
        raise OSError(errno.EFBIG, f"it is larger than {longest >> 20} MiB", str(path))
    return data
