"""Replace files atomically: a reader finds the old text or the new one, also after a crash."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

__all__ = ["sync_folder", "write_atomically"]


def write_atomically(path: Path, text: str, mode: int = 0o600) -> None:
    """Replace the file with this text, as UTF-8, durably. Several processes may do so at the same time.

    Args:
        path: the file. A symbolic link is replaced, and its target is not changed.
        text: the new content.
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
    # The text is on the disk. Its name is in the folder, which must be synced too.
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Write the names of the files in a folder to the disk. On Windows, which has no such call, this does nothing.

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
