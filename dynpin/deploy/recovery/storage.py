"""Write files: whole or not at all, readable for the right users, one command at a time."""

from __future__ import annotations

import errno
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from dynpin.errors import RecoveryError
from dynpin.middleware.policy import write_atomically

from ..locks import Busy, locked

__all__ = ["PRIVATE", "SERVED", "changing", "closed_folders", "make_folder", "move_aside", "unwritable", "write"]

# The mode of a folder that a web server reads, and of one with keys. The umask does not change them.
SERVED, PRIVATE = 0o755, 0o700

_ADVICE = {
    errno.ENOSPC: "The disk is full. Free some space",
    errno.EDQUOT: "Your quota is used up. Free some space",
    errno.EROFS: "The disk is mounted read-only. Mount it for writing",
    errno.EACCES: "Become a user who may write there",
    errno.EPERM: "Become a user who may write there",
}


def unwritable(path: Path, error: OSError) -> RecoveryError:
    """The error for a file or folder that cannot be written: which, why, and what to do."""
    advice = _ADVICE.get(error.errno or 0, "Remove the cause")
    return RecoveryError(
        f"{path} cannot be written: {error.strerror or error}. {advice}, and run the same command again: it "
        "continues where it stopped"
    )


def write(path: Path, data: bytes) -> None:
    """Replace a public file by this content.

    Raises:
        RecoveryError: if it cannot be written; the old file is unchanged, and nothing half-written is left.
    """
    try:
        write_atomically(path, data.decode("utf-8"), 0o644)
    except OSError as error:
        raise unwritable(path, error) from None


def make_folder(path: Path, mode: int = SERVED) -> Path:
    """Create a folder and its parents if they are missing; returns it. An existing folder keeps its mode.

    Raises:
        RecoveryError: if it cannot be created.
    """
    for folder in [each for each in (path, *path.parents) if not each.is_dir()][::-1]:
        try:
            folder.mkdir(exist_ok=True)
            folder.chmod(mode)
        except OSError as error:
            raise unwritable(folder, error) from None
    return path


def closed_folders(served: Path) -> list[Path]:
    """The folders of published files that only their owner can read: a web server with another user cannot."""
    folders = [each for each in (served, served / "targets") if each.is_dir() and os.name == "posix"]
    return [each for each in folders if all(each.stat().st_mode & bits != bits for bits in (0o050, 0o005))]


def move_aside(file: Path, folder: Path) -> Path:
    """Move a file into a folder, under a name that is free there. Deletes and overwrites nothing.

    Raises:
        RecoveryError: if it cannot be moved.
    """
    make_folder(folder, PRIVATE)
    number, target = 1, folder / file.name
    while target.exists():
        number += 1
        target = folder / f"{file.name}.{number}"
    try:
        file.rename(target)
    except OSError as error:
        raise unwritable(target, error) from None
    return target


@contextmanager
def changing(folder: Path) -> Generator[None]:
    """Keep all other commands from changing this folder inside the block.

    Raises:
        RecoveryError: if another command holds the lock for longer than ten seconds, or if it cannot be opened.
    """
    try:
        with locked(folder, folder / ".lock", "the signed files"):
            yield
    except Busy as error:
        raise RecoveryError(str(error)) from None
