"""Work shared among processes that end when their parent does, and leave Ctrl-C to it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from itertools import islice
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

__all__ = ["shared"]

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")


def shared(
    work: Callable[[_Task], _Result],
    tasks: Iterable[_Task],
    processes: int,
    prepare: Callable[[], object] | None = None,
) -> Generator[_Result]:
    """The results of `work` for each task, in the order in which they are done; close it to leave off.

    Args:
        work: a function of a module, since it is called in other processes.
        tasks: what it is called with, once each.
        processes: how many processes.
        prepare: is called in each process before its first task.

    Raises:
        concurrent.futures.BrokenExecutor: where the system killed a worker process.
    """
    context = _Workers()
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_begin, initargs=(prepare,))
    remaining = iter(tasks)
    try:
        # Two for each process, so that none waits. Not all at once: a result is held only until it is used, and when a
        # process is killed, CPython's pool must not be found taking in tasks: before 3.12 it lists them without a lock.
        unfinished = _submitted(pool, work, islice(remaining, 2 * processes))
        while unfinished:
            done, unfinished = wait(unfinished, return_when=FIRST_COMPLETED)
            unfinished |= _submitted(pool, work, islice(remaining, len(done)))
            while done:
                yield done.pop().result()
    except BrokenExecutor:
        # CPython ends the other workers, but for one that is being started in that moment: it would wait for work, and
        # the pool for it, for ever.
        context.end()
        raise
    finally:
        # After Ctrl-C no more than the tasks that have begun are waited for.
        pool.shutdown(cancel_futures=True)


def _submitted(
    pool: ProcessPoolExecutor, work: Callable[[_Task], _Result], tasks: Iterable[_Task]
) -> set[Future[_Result]]:
    with _no_interrupt():  # since this starts processes
        return {pool.submit(work, task) for task in tasks}


class _Workers(SpawnContext):
    """Starts processes, and knows which. They are not forked: a program with threads may call this."""

    def __init__(self) -> None:
        super().__init__()
        self._started: list[SpawnProcess] = []

    def Process(self, *args: Any, **options: Any) -> SpawnProcess:  # type: ignore[override]  # noqa: ANN401 - as there
        """A process that is about to be started; a class of that name in the base."""
        process = SpawnProcess(*args, **options)
        self._started.append(process)
        return process

    def end(self) -> None:
        """End every process at once."""
        for process in self._started:
            if process.pid is not None:
                process.kill()


def _begin(prepare: Callable[[], object] | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A worker waits for work for ever, even when who started it was killed.
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    if prepare is not None:
        prepare()


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


@contextmanager
def _no_interrupt() -> Generator[None]:
    """Processes that start in here never see Ctrl-C, not even while they import: it is their parent that stops them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
