"""Files that are replaced whole: whoever reads one meanwhile, or after a crash, finds the old text or the new one."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

__all__ = ["sync_folder", "write_atomically"]


def write_atomically(path: Path, text: str, mode: int = 0o600) -> None:
    """Put this text, as UTF-8, on the disk in place of the file. Several processes may do so at the same time.

    Args:
        path: the file; a symbolic link is replaced, and its target stays as it was.
        text: what it is to hold.
        mode: its permissions.

    Raises:
        OSError: if the folder cannot be written; the file holds the old text or the new one.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(mode)
        Path(name).replace(path)
    except BaseException:  # Ctrl-C too
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
    # The text is on the disk; that the file has this name is written in its folder.
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Put the names of the files in a folder on the disk. Windows has no such call, and nothing is done there.

    Raises:
        OSError: if the disk fails, or there is no such folder.
    """
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
