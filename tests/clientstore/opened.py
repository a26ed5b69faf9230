"""The files of a store that this process has open. Other descriptors belong to other tests."""

from __future__ import annotations

import contextlib
import gc
import os
import time
from pathlib import Path

__all__ = ["files_left_open", "open_files"]

# In seconds: longer than any machine needs.
_STUCK_AFTER = 60.0


def open_files(path: Path | str) -> list[str]:
    """The open files of the store, and the files beside it whose names begin with the store's name.

    Empty if the system does not list open files.
    """
    folder = Path("/proc/self/fd")
    found = []
    for descriptor in list(folder.iterdir()) if folder.is_dir() else ():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found.append(str(descriptor.readlink()))
    return [file for file in found if file.startswith(str(path))]


def files_left_open(path: Path | str) -> list[str]:
    """The files that are still open after all threads have ended and garbage was collected."""
    deadline = time.monotonic() + _STUCK_AFTER
    while True:
        gc.collect()
        files = open_files(path)
        if not files or time.monotonic() > deadline:
            return files
        os.sched_yield()
