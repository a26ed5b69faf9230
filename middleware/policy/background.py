"""Work that goes round in the background of a server: one daemon thread, made new in each forked process."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from abc import ABC, abstractmethod
from typing import Generic, TypeVar

__all__ = ["BackgroundLoop"]

logger = logging.getLogger("dynpin.middleware")

_PATIENCE = 5.0

Member = TypeVar("Member")
Seen = TypeVar("Seen")


class BackgroundLoop(ABC, Generic[Member, Seen]):
    """Looks at each of its members again and again, from one daemon thread, and remembers what it saw of each.

    Args:
        name: what to call the thread.
        interval: seconds between two looks.

    Attributes:
        thread: the thread that goes round, or None.
    """

    def __init__(self, name: str, interval: float) -> None:
        self.name, self.interval = name, interval
        self._members: weakref.WeakKeyDictionary[Member, Seen] = weakref.WeakKeyDictionary()
        # Two locks: a fork waits for the thread to end, which therefore may not wait for the lock of the thread.
        self._membership = threading.Lock()
        self._lifecycle = threading.Lock()
        self.thread: threading.Thread | None = None
        self._stop = threading.Event()

    @abstractmethod
    def look_at(self, member: Member, before: Seen) -> Seen:
        """Look at one member; `before` is what the last look gave. It raises nothing that the world can cause."""

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs in this process."""
        return self.thread is not None and self.thread.is_alive()

    def include(self, member: Member, seen: Seen) -> None:
        """Look at this one too, for as long as it lives; twice is once."""
        with self._lifecycle:
            with self._membership:
                self._members.setdefault(member, seen)
            self._start()

    def look(self) -> None:
        """Go round once. The thread does nothing else."""
        with self._membership:
            members = list(self._members.items())
        for each, before in members:
            try:
                now = self.look_at(each, before)
            except Exception:
                # A fault of ours, and one member's: the others are looked at all the same, and this one again.
                logger.exception("%s could not look at %r", self.name, each)
                continue
            if now != before:
                with self._membership:
                    self._members[each] = now

    def _start(self) -> None:
        if not self.is_alive:
            self._stop = threading.Event()
            self.thread = threading.Thread(target=self._run, args=(self._stop,), name=self.name, daemon=True)
            self.thread.start()

    def _run(self, stop: threading.Event) -> None:
        while not stop.wait(self.interval):
            self.look()

    # A thread does not survive fork, and what it held at that moment stays locked in the child. So it ends before a
    # fork (gunicorn --preload), and both processes begin another.

    def survive_forks(self) -> None:
        """Have this end before each fork of the process and begin again after it."""
        if hasattr(os, "register_at_fork"):  # not on Windows
            os.register_at_fork(
                before=self.before_fork, after_in_parent=self.after_fork, after_in_child=self.after_fork
            )

    def before_fork(self) -> None:
        """End the thread, and let nobody start one until the fork is over."""
        self._lifecycle.acquire()
        self._stop.set()
        if self.thread is not None:
            # With a limit, for a disk or a network that hangs must not hang a server that starts its workers.
            self.thread.join(_PATIENCE)
            self.thread = None

    def after_fork(self) -> None:
        """Begin again, in the parent as in the child."""
        if self._members:
            self._start()
        self._lifecycle.release()
