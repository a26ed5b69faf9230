"""Watching files, so that a header follows its keys and no request ever waits for a disk."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

__all__ = ["Signature", "Watched", "Watcher", "signature", "watcher"]

_PATIENCE = 5.0

Signature = tuple[tuple[int, ...] | None, ...]


class Watched(Protocol):
    """What is made from files, and can be made anew."""

    @property
    def made_from(self) -> Signature:
        """The signature of the files when they were read last."""
        ...

    def signature(self) -> Signature:
        """The signature of the files now."""
        ...

    def refresh(self) -> bool:
        """Read the files; True if that changed anything. Raises nothing that a file can cause."""
        ...


def signature(paths: Iterable[Path]) -> Signature:
    """What tells a changed file from an unchanged one; None for a missing one. Symbolic links are followed."""
    return tuple(map(_status, paths))


def _status(path: Path) -> tuple[int, ...] | None:
    try:
        status = path.stat()
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return None
    # The inode tells a file that was moved into place, the time of the inode one whose own time was set back.
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class Watcher:
    """Looks at files from one daemon thread, and has read again what has changed and since stood still.

    A change is taken at the look after the one that saw it, if nothing has moved in between: a file is not read while
    it is being written, nor a new backup key without the new chain that is copied right after it.

    Args:
        interval: seconds between two looks.

    Attributes:
        thread: the thread that looks, or None.
    """

    def __init__(self, interval: float = 0.5) -> None:
        self.interval = interval
        self._watched: weakref.WeakKeyDictionary[Watched, Signature] = weakref.WeakKeyDictionary()
        # Two locks: a fork waits for the thread to end, which therefore may not wait for the lock of the thread.
        self._members = threading.Lock()
        self._lifecycle = threading.Lock()
        self.thread: threading.Thread | None = None
        self._stop = threading.Event()

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs in this process."""
        return self.thread is not None and self.thread.is_alive()

    def add(self, watched: Watched) -> None:
        """Watch this for as long as it lives; twice is once."""
        with self._lifecycle:
            with self._members:
                self._watched.setdefault(watched, watched.made_from)
            self._start()

    def look(self) -> None:
        """Look at every file once. The thread does nothing else."""
        with self._members:
            watched = list(self._watched.items())
        for each, before in watched:
            now = each.signature()
            if now == before != each.made_from:
                each.refresh()
            if now != before:
                with self._members:
                    self._watched[each] = now

    def _start(self) -> None:
        if not self.is_alive:
            self._stop = threading.Event()
            self.thread = threading.Thread(
                target=self._run, args=(self._stop,), name="dynpin-policy-watcher", daemon=True
            )
            self.thread.start()

    def _run(self, stop: threading.Event) -> None:
        while not stop.wait(self.interval):
            self.look()

    # A thread does not survive fork, and what it held at that moment stays locked in the child. So it ends before a
    # fork (gunicorn --preload), and both processes begin another.

    def before_fork(self) -> None:
        """End the thread, and let nobody start one until the fork is over."""
        self._lifecycle.acquire()
        self._stop.set()
        if self.thread is not None:
            # With a limit, for a disk that hangs must not hang a server that starts its workers.
            self.thread.join(_PATIENCE)
            self.thread = None

    def after_fork(self) -> None:
        """Begin again, in the parent as in the child."""
        if self._watched:
            self._start()
        self._lifecycle.release()


watcher = Watcher()

if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(
        before=watcher.before_fork, after_in_parent=watcher.after_fork, after_in_child=watcher.after_fork
    )
