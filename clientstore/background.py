"""A daemon thread for one store, which runs while there is work: reports to send, or signed lists to fetch."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from contextlib import contextmanager

from dynpin.errors import StoreError

from .store import IN_MEMORY, PinStore

__all__ = ["Background", "farewell", "living"]

logger = logging.getLogger("dynpin.clientstore")

# How long the thread sleeps at most, in seconds.
_LONGEST_SLEEP = 3_600.0


class Background(ABC):
    """Does the work that is due for a store, and sleeps until more is due. The next process continues unfinished work.

    Args:
        store: the store with the work.
        name: the name of the thread.
        ended: the log message if the store cannot be used any more.
    """

    def __init__(self, store: PinStore, name: str, ended: str) -> None:
        self.store = store
        self._name = name
        self._ended = ended
        self._thread: threading.Thread | None = None
        self._renew()
        _all.add(self)

    @abstractmethod
    def _step(self, store: PinStore) -> Callable[[], float | None]:
        """Do all work that is due, on the thread's own store. The thread calls this again and again.

        Returns the time at which more work is due, in seconds since the epoch, UTC; None if there is none.
        """

    def wait(self, timeout: float) -> bool:
        """Wait until all due work was tried; False if that takes longer than `timeout` seconds."""
        return self._thread is None or self._idle.wait(timeout)

    def _begin(self) -> None:
        """Start or wake the thread. Call this only on the store's own thread, where no signal handler runs.

        An exception from a handler could leave the lock locked, and a handshake would hang.
        """
        with self._lock:
            self._idle.clear()
            self._wake.set()
            if self._thread is not None and self._thread.is_alive():
                return
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # the interpreter is shutting down: the next process continues
                self._thread = None
                self._idle.set()

    def _run(self) -> None:
        try:
            with self._own_store() as store:
                step = self._step(store)
                while True:
                    self._wake.clear()
                    due = step()
                    with self._lock:
                        if due is None and not self._wake.is_set():
                            self._thread = None
                            return
                        if not self._wake.is_set():
                            self._idle.set()
                    if due is not None:
                        self._wake.wait(min(max(due - store.clock(), 0.0), _LONGEST_SLEEP))
                        self._idle.clear()
        except StoreError as error:  # a full disk, a lock that is held for long, a damaged table
            logger.warning("%s: %s", self._ended, error)
        except Exception:  # threading would print it into the program's stderr
            logger.exception("%s", self._ended)
        finally:
            with self._lock:
                # The thread has announced its end, so another one may have started.
                if self._thread in (None, threading.current_thread()):
                    self._idle.set()

    @contextmanager
    def _own_store(self) -> Generator[PinStore]:
        # A store object of its own: a script closes its store as soon as the error leaves its `with`.
        if self.store.path == IN_MEMORY:
            yield self.store
            return
        with PinStore(self.store.path, clock=self.store.clock, on_clock_jump=self.store.on_clock_jump) as store:
            yield store

    def _renew(self) -> None:
        """Start without a thread in the child of a fork: the thread belongs to the parent."""
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._idle = threading.Event()
        self._thread = None


_all: weakref.WeakSet[Background] = weakref.WeakSet()


def living(kind: type[Background]) -> list[Background]:
    """All objects of one kind that are in use."""
    return [each for each in tuple(_all) if isinstance(each, kind)]


def farewell(kind: type[Background], grace: float) -> None:
    """Wait so many seconds in all for unfinished work: a script whose connection was refused ends at once."""
    end = time.monotonic() + grace
    for each in living(kind):
        each.wait(max(0.0, end - time.monotonic()))


def _after_fork_in_child() -> None:
    for each in tuple(_all):
        each._renew()  # pyright: ignore[reportPrivateUsage] # of this module


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
