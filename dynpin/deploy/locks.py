"""Allow one command at a time to change a folder. The system releases the lock if the process dies."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType

from dynpin.errors import DynpinError

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None

__all__ = ["Busy", "locked"]

# How long a command waits for another one, in seconds: writing takes milliseconds.
PATIENCE = 10.0
_PAUSE = 0.01


class Busy(DynpinError, RuntimeError):
    """Another command has the lock; the message names what it changes, and what to do."""


@contextmanager
def locked(folder: Path, file: Path, what: str) -> Generator[None]:
    """Hold the lock of a folder inside the block.

    Args:
        folder: it must exist.
        file: used as the lock if the system cannot lock a folder.
        what: what is being changed, for messages: ``"a history"``.

    Raises:
        Busy: if another command holds it for longer than ten seconds.
        OSError: if the folder cannot be opened.
    """
    deadline = time.monotonic() + PATIENCE
    release = _hold_folder(folder, what, deadline) if fcntl is not None else None
    if release is None:
        release = _hold_file(file, what, deadline)
    try:
        yield
    finally:
        release()


def _hold_folder(folder: Path, what: str, deadline: float) -> Callable[[], None] | None:
    """Lock a folder, which leaves no file behind. None if this is not possible."""
    assert fcntl is not None  # noqa: S101 - the caller has looked
    handle = os.open(folder, os.O_RDONLY)
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(handle)
                raise Busy(f"another command is changing {what} in {folder}: try again") from None
            time.sleep(_PAUSE)
        except OSError:  # some network file systems
            os.close(handle)
            return None
        else:
            return lambda: os.close(handle)


def _hold_file(file: Path, what: str, deadline: float) -> Callable[[], None]:
    """Lock with a file that only one process can create."""
    while True:
        try:
            with file.open("x"):
                pass
        except FileExistsError:
            if time.monotonic() > deadline:
                raise Busy(
                    f"another command is changing {what}: {file} is there. If none runs, one was killed: remove that "
                    "file"
                ) from None
            time.sleep(_PAUSE)
        else:
            return lambda: _remove(file)


def _remove(file: Path) -> None:
    with suppress(FileNotFoundError):
        file.unlink()
