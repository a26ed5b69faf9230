"""The thread that writes.

Python runs signal handlers on the main thread alone. So nothing that a handler raises can interrupt what runs here: a
transaction has happened whole or not at all, whatever becomes of the one who waits for it.
"""

from __future__ import annotations

import _thread
import queue
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from dynpin.errors import StoreError

from .files import PATIENCE, fork_under_way

__all__ = ["WritingThread"]

_Value = TypeVar("_Value")

# How long a caller waits for the disk, in seconds; for a lock it is PATIENCE.
_LONGEST = 10.0
_PAUSE = 0.001


class _Task(Generic[_Value]):
    """One thing to do, and what came of it."""

    def __init__(self, act: Callable[[], _Value], patience: float) -> None:
        self.act = act
        self.due = time.monotonic() + patience
        # A plain lock is taken and released in one step each. Event and Future hold a lock of their own for a while,
        # and what a signal handler raises then would leave it locked.
        self.done = threading.Lock()
        self.done.acquire()
        self.result: list[_Value] = []
        self.error: BaseException | None = None

    def do(self, name: str) -> None:
        """Do it, and tell the one who waits."""
        try:
            if time.monotonic() > self.due:
                self.error = StoreError(f"{name} is busy: other writes are taking long; try again")
            else:
                self.result.append(self.act())
        except BaseException as error:  # noqa: BLE001 - it is raised where somebody waits
            self.error = error
        finally:
            self.done.release()


class WritingThread:
    """Does what it is given, one task after the other. The thread ends when nothing waits, and starts again.

    Args:
        name: whose it is, for messages.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: queue.SimpleQueue[_Task[Any]] = queue.SimpleQueue()
        self._working = threading.Lock()
        self._thread = 0

    def do(self, act: Callable[[], _Value], *, patience: float = PATIENCE) -> _Value:
        """Have it done, and return what it returns, or raise what it raises.

        Args:
            act: what to do.
            patience: how long it may wait behind other tasks, in seconds.

        Raises:
            StoreError: if it is not done within ten seconds; or not begun in time, as other tasks take long.
        """
        if self._thread == threading.get_ident():
            raise StoreError(f"{self._name} cannot be used out of its own transaction, by a log handler for example")
        task = _Task(act, patience)
        self._give(task)
        if not task.done.acquire(timeout=_LONGEST):
            raise StoreError(f"{self._name}: the disk did not answer for {_LONGEST:g} s; see what holds it up")
        if task.error is not None:
            raise task.error
        return task.result[0]

    def do_later(self, act: Callable[[], object]) -> None:
        """Have it done, and do not wait. What it raises is lost, so it must tell of it."""
        self._give(_Task(act, float("inf")))

    def rests(self) -> bool:
        """Wait, while a fork is under way, until the thread does nothing; False if that takes five seconds."""
        deadline = time.monotonic() + 5 * PATIENCE
        while self._working.locked():
            if time.monotonic() > deadline:
                return False
            time.sleep(_PAUSE)
        return True

    def _give(self, task: _Task[Any]) -> None:
        self._tasks.put(task)
        # Who holds the lock looks for tasks again after it has released it.
        if not self._working.locked():
            self._start()

    def _start(self) -> None:
        if sys.is_finalizing():  # a thread would not run any more
            self._work()
            return
        try:
            _thread.start_new_thread(self._work, ())
        except RuntimeError:  # the interpreter is going down, or the system has no thread to give
            self._work()

    def _work(self) -> None:
        while not self._tasks.empty():
            if not self._working.acquire(blocking=False):
                return
            try:
                self._thread = threading.get_ident()
                # Looked at while the lock is held: a thread that forks says so first, and then waits for the lock.
                while not fork_under_way():
                    try:
                        task = self._tasks.get_nowait()
                    except queue.Empty:
                        break
                    task.do(self._name)
            finally:
                self._thread = 0
                self._working.release()
            if fork_under_way():
                time.sleep(_PAUSE)  # what is left is done after the fork, by the parent
