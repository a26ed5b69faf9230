"""Watching key files, so that a header follows its keys and no request ever waits for a disk."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

__all__ = ["INTERVAL", "Signature", "Watched", "signature", "watch"]

logger = logging.getLogger("dynpin.middleware")

# Seconds between two looks; a change is picked up within two.
INTERVAL = 1.0

Signature = tuple[tuple[str, int, int, int] | None, ...]


class Watched(Protocol):
    """What looks at its own files when it is told to."""

    def refresh(self) -> bool:
        """Look again; True if anything has changed."""
        ...


def signature(paths: Iterable[Path]) -> Signature:
    """What tells a changed file from an unchanged one: inode, size and time of change; None for a missing one."""

    def of(path: Path) -> tuple[str, int, int, int] | None:
        try:
            status = path.stat()
        except OSError:
            return None
        return (str(path), status.st_ino, status.st_size, status.st_mtime_ns)

    return tuple(of(path) for path in paths)


_watched: weakref.WeakSet[Watched] = weakref.WeakSet()
_lock = threading.Lock()
_thread: threading.Thread | None = None


def watch(policy: Watched) -> None:
    """Refresh this policy every INTERVAL seconds for as long as it lives, from one daemon thread of the process."""
    with _lock:
        _watched.add(policy)
        _start()


def is_watching() -> bool:
    """Whether this process has a watcher that runs."""
    return _thread is not None and _thread.is_alive()


def _start() -> None:
    global _thread  # noqa: PLW0603 - one watcher a process
    if not is_watching():
        _thread = threading.Thread(target=_look_for_ever, name="dynpin-policy-watcher", daemon=True)
        _thread.start()


def _look_for_ever() -> None:
    pause = threading.Event()
    while not pause.wait(INTERVAL):
        for policy in tuple(_watched):
            try:
                policy.refresh()
            except Exception:
                logger.exception("the key files of a policy could not be looked at")


def _after_fork_in_child() -> None:
    # Threads stay behind at a fork (gunicorn --preload): the child watches for itself.
    global _lock, _thread
    _lock, _thread = threading.Lock(), None
    if _watched:
        _start()


os.register_at_fork(after_in_child=_after_fork_in_child)
