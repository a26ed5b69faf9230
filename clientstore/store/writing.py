"""The thread that writes.

Python runs signal handlers on the main thread only, so an exception from a handler cannot interrupt this thread. A
transaction happens whole or not at all, even if the thread that waits for it is interrupted.
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

# How long a caller waits for the disk, in seconds. For a lock it is PATIENCE.
_LONGEST = 10.0
_PAUSE = 0.001


class _Task(Generic[_Value]):
    """One task and its result."""

    def __init__(self, act: Callable[[], _Value], patience: float) -> None:
        self.act = act
        self.due = time.monotonic() + patience
        # A plain lock is acquired and released in one step each. Event and Future hold an inner lock for a while, and
        # an exception from a signal handler would leave that locked.
        self.done = threading.Lock()
        self.done.acquire()
        self.result: list[_Value] = []
        self.error: BaseException | None = None

    def do(self, name: str) -> None:
        """Run the task, and wake the thread that waits."""
        try:
            if time.monotonic() > self.due:
                self.error = StoreError(f"{name} is busy: other writes take long; try again")
            else:
                self.result.append(self.act())
        except BaseException as error:  # noqa: BLE001 - it is raised where somebody waits
            self.error = error
        finally:
            self.done.release()


class WritingThread:
    """Runs tasks one after the other. The thread ends when there is no task, and starts again for the next.

    Args:
        name: the store's name, for messages.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: queue.SimpleQueue[_Task[Any]] = queue.SimpleQueue()
        self._working = threading.Lock()
        self._thread = 0

    def do(self, act: Callable[[], _Value], *, patience: float = PATIENCE) -> _Value:
        """Run a task on the thread. Return its result, or raise its exception.

        Args:
            act: the task.
            patience: how long it may wait for other tasks, in seconds.

        Raises:
            StoreError: if it does not finish within ten seconds, or cannot begin in time.
        """
        if self._thread == threading.get_ident():
            raise StoreError(f"{self._name} cannot be used inside its own transaction, by a log handler for example")
        task = _Task(act, patience)
        self._give(task)
        if not task.done.acquire(timeout=_LONGEST):
            raise StoreError(f"{self._name}: the disk did not answer for {_LONGEST:g} s; see what holds it up")
        if task.error is not None:
            raise task.error
        return task.result[0]

    def do_later(self, act: Callable[[], object]) -> None:
        """Run a task without waiting for it. Its exception is lost, so the task must report it."""
        self._give(_Task(act, float("inf")))

    def rests(self) -> bool:
        """Wait until the thread is idle, during a fork; False if that takes five seconds."""
        deadline = time.monotonic() + 5 * PATIENCE
        while self._working.locked():
            if time.monotonic() > deadline:
                return False
            time.sleep(_PAUSE)
        return True

    def _give(self, task: _Task[Any]) -> None:
        self._tasks.put(task)
        # The thread that holds the lock looks for tasks again after it has released the lock.
        if not self._working.locked():
            self._start()

    def _start(self) -> None:
        if sys.is_finalizing():  # a new thread would not run
            self._work()
            return
        try:
            _thread.start_new_thread(self._work, ())
        except RuntimeError:  # the interpreter is shutting down, or the system has no more threads
            self._work()

    def _work(self) -> None:
        while not self._tasks.empty():
            if not self._working.acquire(blocking=False):
                return
            try:
                self._thread = threading.get_ident()
                # Checked while the lock is held: a thread that forks announces the fork, and then waits for the lock.
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
                time.sleep(_PAUSE)  # after the fork the parent runs the remaining tasks
