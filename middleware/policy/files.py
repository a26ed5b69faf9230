"""Read the operator's files with limits, so that no server waits for ever at its start."""

from __future__ import annotations

import errno
import os
from pathlib import Path

__all__ = ["LONGEST_FILE", "read_file"]

# In bytes. Keys, chains and dynpin.toml have kilobytes; a bundle of all public roots has a quarter of a megabyte.
LONGEST_FILE = 16 << 20


def read_file(path: Path, longest: int = LONGEST_FILE) -> bytes:
    """The content of a file; empty for a pipe without a writer.

    Raises:
        OSError: if it cannot be read, or is larger than `longest` bytes.
    """
    # Do not wait for the writer of a FIFO. If there is none, reading ends at once.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        # A folder can be opened, and fails now. Errors of a handle name no file, or its number.
        with os.fdopen(handle, "rb", closefd=False) as file:
            if hasattr(os, "O_NONBLOCK"):
                os.set_blocking(handle, True)
            data = file.read(longest + 1)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        os.close(handle)
    if len(data) > longest:
        raise OSError(errno.EFBIG, f"it is larger than {longest >> 20} MiB", str(path))
    return data
