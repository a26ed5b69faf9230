"""What a refused connection sets off: the signed list of the root that was noted is looked at, in the background.

The wish is kept in the store, so that a process which ends too early leaves it to the next one.
"""

from __future__ import annotations

import atexit
import logging
import os
import sqlite3
import ssl
import threading
import time
import weakref
from collections.abc import Generator
from contextlib import contextmanager

from dynpin.errors import StoreError
from dynpin.recovery import Recovery

from .enforcement import same_roots
from .store import IN_MEMORY, PinStore, ask, claim, look_at, next_look_at

__all__ = ["Healing"]

logger = logging.getLogger("dynpin.clientstore")

# How long a process that ends waits for a look that is under way, and how long the thread sleeps at most, in seconds.
_GRACE = 2.0
_LONGEST_SLEEP = 3_600.0


class Healing:
    """Looks at signed lists for one store, from a daemon thread that runs while one is to be looked at.

    Args:
        store: whose hosts have noted the roots.
        context: the enforced context, whose CA certificates an https URI is held against; None for the system's.
    """

    def __init__(self, store: PinStore, *, context: ssl.SSLContext | None = None) -> None:
        self.store = store
        self.context = context
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._idle = threading.Event()
        self._thread: threading.Thread | None = None
        _all.add(self)

    def ask(self, recovery: Recovery, *, may_wait: bool) -> None:
        """A connection was refused: have the list of this root looked at, and write that down.

        Args:
            recovery: what the host has noted.
            may_wait: whether the thread may wait for the disk.

        Raises:
            StoreError: where the file cannot be written.
        """

        def job(connection: sqlite3.Connection) -> None:
            ask(connection, recovery, self.store.clock())
            self._begin()  # it waits for this transaction

        (self.store.database.write if may_wait else self.store.database.write_later)(job)

    def resume(self) -> None:
        """Go on with what an earlier process has left, and with the lists that are followed."""
        try:
            waits = next_look_at(self.store.database.select) is not None
        except StoreError:  # each handshake will say so, and refuse
            logger.exception("the signed lists cannot be looked up")
            return
        if waits:
            # On the store's thread, where no signal handler raises: a lock that is left locked would hang a handshake.
            self.store.database.write_later(lambda _: self._begin())

    def wait(self, timeout: float) -> bool:
        """Wait until what is due was looked at; False where that takes longer than `timeout` seconds."""
        return self._thread is None or self._idle.wait(timeout)

    def _begin(self) -> None:
        with self._lock:
            self._idle.clear()
            self._wake.set()
            if self._thread is not None and self._thread.is_alive():
                return
            self._thread = threading.Thread(target=self._run, name="dynpin-recovery", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # the interpreter is going down: the next process goes on
                self._thread = None
                self._idle.set()

    def _run(self) -> None:
        try:
            with self._own_store() as store:
                while True:
                    self._wake.clear()
                    self._look(store)
                    due = next_look_at(store.database.select)
                    with self._lock:
                        if due is None and not self._wake.is_set():
                            self._thread = None
                            return
                        if not self._wake.is_set():
                            self._idle.set()
                    if due is not None:
                        self._wake.wait(min(max(due - store.clock(), 0.0), _LONGEST_SLEEP))
                        self._idle.clear()
        except StoreError:
            logger.exception("looking at signed lists ended; the next process goes on")
        finally:
            with self._lock:
                # After it has said that it ends, another may have begun.
                if self._thread in (None, threading.current_thread()):
                    self._idle.set()

    def _look(self, store: PinStore) -> None:
        """Look at every list that is due."""
        while (look := store.database.write(lambda connection: claim(connection, store.clock()))) is not None:
            changed = look_at(store.database, look, store.clock, context=same_roots(self.context))
            if changed:
                logger.warning("the signed list at %s gave %s other pins", look.recovery.uri, ", ".join(changed))

    @contextmanager
    def _own_store(self) -> Generator[PinStore]:
        # A connection of its own: a script closes its store as soon as the error leaves its `with`.
        if self.store.path == IN_MEMORY:
            yield self.store
            return
        with PinStore(self.store.path, clock=self.store.clock, on_clock_jump=self.store.on_clock_jump) as store:
            yield store

    def after_fork_in_child(self) -> None:
        """Leave the parent its thread; called by :func:`os.fork`."""
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._idle = threading.Event()
        self._thread = None


_all: weakref.WeakSet[Healing] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for each in tuple(_all):
        each.after_fork_in_child()


def _farewell() -> None:
    """Give a look that is under way a moment: a script that was refused ends at once."""
    end = time.monotonic() + _GRACE
    for each in tuple(_all):
        each.wait(max(0.0, end - time.monotonic()))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_farewell)
