"""A reserve of disk space, so that reports can be deleted on a full disk.

SQLite first writes each deletion into its log, and on a full disk the log cannot grow. So a file beside the storage
takes some space from the start. It is removed if a deletion has no other space.
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

# The log grows to this size before a checkpoint, which needs as much space in the file. Half of it on a small disk.
_BYTES, _PART = 2**25, 2
_Result = TypeVar("_Result")


def keep_reserve(storage: Path) -> None:
    """Make the reserve of a storage if it has none and the disk has space for it."""
    with contextlib.suppress(OSError):
        size = min(_BYTES, shutil.disk_usage(_path(storage).parent).free // _PART)
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
    """Call `work`. If the storage fails, remove the reserve and call it once more.

    Raises:
        StoreError: if the second call fails too, or there was no reserve.
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
    # Beside the file itself, whose disk it is about, if the storage is a link.
    return Path(f"{os.path.realpath(storage) if storage.is_symlink() else storage}-reserve")
