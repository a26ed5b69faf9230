"""Room for the deletion of reports on a disk that is full: a file that is given up for it.

SQLite writes what it deletes into its log first, and on a full disk the log cannot grow. So a file beside the storage
takes some room from the start, and is removed where there is no other.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from dynpin.errors import StoreError

__all__ = ["keep_reserve", "with_reserve"]

# As long as the log grows before it is moved into the file, which needs the same room; on a small disk, half of it.
_BYTES, _PART = 2**25, 2
_Result = TypeVar("_Result")


def keep_reserve(storage: Path) -> None:
    """Make the reserve of a storage if it has none; where there is no room for it, there is none."""
    with contextlib.suppress(OSError):
        size = min(_BYTES, shutil.disk_usage(storage.parent).free // _PART)
        if size == 0:
            return
        file = os.open(_path(storage), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        try:
            os.posix_fallocate(file, 0, size)
        except OSError:
            _path(storage).unlink()
        finally:
            os.close(file)


def with_reserve(storage: Path, work: Callable[[], _Result]) -> _Result:
    """Do something; where the storage fails, do it once more without the reserve.

    Raises:
        StoreError: where that was of no use, or no reserve was left.
    """
    try:
        return work()
    except StoreError:
        try:
            _path(storage).unlink()
        except OSError:
            has_room = False
        else:
            has_room = True
        if not has_room:
            raise
    return work()


def _path(storage: Path) -> Path:
    return storage.with_name(f"{storage.name}-reserve")
