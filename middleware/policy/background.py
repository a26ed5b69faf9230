"""Repeated work in the background of a server: one daemon thread, started again in each forked process."""

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
    """Looks at each of its members again and again, on one daemon thread, and remembers the result for each.

    Args:
        name: the name of the thread.
        interval: seconds between two looks.

    Attributes:
        thread: the thread, or None.
    """

    def __init__(self, name: str, interval: float) -> None:
        self.name, self.interval = name, interval
        self._members: weakref.WeakKeyDictionary[Member, Seen] = weakref.WeakKeyDictionary()
        # Two locks: a fork holds the lock of the thread and waits for its end, so the thread must not need that lock.
        self._membership = threading.Lock()
        self._lifecycle = threading.Lock()
        self.thread: threading.Thread | None = None
        self._stop = threading.Event()

    @abstractmethod
    def look_at(self, member: Member, before: Seen) -> Seen:
        """Look at one member; `before` is the result of the last look. Files and networks must not make it raise."""

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs in this process."""
        return self.thread is not None and self.thread.is_alive()

    def include(self, member: Member, seen: Seen) -> None:
        """Look at this member too, as long as it exists. A second call does nothing."""
        with self._lifecycle:
            with self._membership:
                self._members.setdefault(member, seen)
            self._start()

    def look(self) -> None:
        """Look at all members once. The thread does nothing else."""
        with self._membership:
            members = list(self._members.items())
        for each, before in members:
            try:
                now = self.look_at(each, before)
            except Exception:
                # A bug with one member. Go on with the others, and try this one again next time.
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

    # A child has no threads after a fork, but the locks that they held stay locked. So the thread ends before a fork
    # (gunicorn --preload), and both processes start a new one.

    def survive_forks(self) -> None:
        """Stop the thread before each fork of the process, and start it again after the fork."""
        if hasattr(os, "register_at_fork"):  # not on Windows
            os.register_at_fork(
                before=self.before_fork, after_in_parent=self.after_fork, after_in_child=self.after_fork
            )

    def before_fork(self) -> None:
        """End the thread, and let nobody start one until the fork is over."""
        self._lifecycle.acquire()
        self._stop.set()
        if self.thread is not None:
            # With a limit: a disk or a network that hangs must not stop a server that starts its workers.
            self.thread.join(_PATIENCE)
            self.thread = None

    def after_fork(self) -> None:
        """Start again, in the parent and in the child."""
        if self._members:
            self._start()
        self._lifecycle.release()
