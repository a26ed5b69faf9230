"""The files of a store that this process has open. Other descriptors are those of other tests."""

from __future__ import annotations

import contextlib
import gc
import os
import time
from pathlib import Path

__all__ = ["files_left_open", "open_files"]

# Nobody needs that long, on whatever machine; in seconds.
_STUCK_AFTER = 60.0


def open_files(path: Path | str) -> list[str]:
    """The open files of the store, and of what lies beside it under a name that begins alike.

    Nothing is found where the system does not tell.
    """
    folder = Path("/proc/self/fd")
    found = []
    for descriptor in list(folder.iterdir()) if folder.is_dir() else ():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found.append(str(descriptor.readlink()))
    return [file for file in found if file.startswith(str(path))]


def files_left_open(path: Path | str) -> list[str]:
    """What is open once all has ended that closes it: threads, and the collection of what exceptions kept alive."""
    deadline = time.monotonic() + _STUCK_AFTER
    while True:
        gc.collect()
        files = open_files(path)
        if not files or time.monotonic() > deadline:
            return files
        os.sched_yield()
