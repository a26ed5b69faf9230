"""Share work among processes. They end when their parent ends, and leave Ctrl-C to it."""

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
    """The results of `work` for each task, in the order in which they are ready. Close the generator to stop early.

    Args:
        work: a function of a module, since other processes call it.
        tasks: the arguments; each is used once.
        processes: how many processes.
        prepare: called in each process before its first task.

    Raises:
        concurrent.futures.BrokenExecutor: if the system killed a worker process.
    """
    context = _Workers()
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_begin, initargs=(prepare,))
    remaining = iter(tasks)
    try:
        # Two tasks for each process, so that none waits. Not all at once: a result is only held until it is used. And
        # if a process is killed while CPython's pool accepts tasks, the pool breaks: before 3.12 it lists them without
        # a lock.
        unfinished = _submitted(pool, work, islice(remaining, 2 * processes))
        while unfinished:
            done, unfinished = wait(unfinished, return_when=FIRST_COMPLETED)
            unfinished |= _submitted(pool, work, islice(remaining, len(done)))
            while done:
                yield done.pop().result()
    except BrokenExecutor:
        # CPython ends the other workers, except one that is starting at that time. It would wait for work, and the pool
        # for it, for ever.
        context.end()
        raise
    finally:
        # After Ctrl-C only the tasks that have begun are waited for.
        pool.shutdown(cancel_futures=True)


def _submitted(
    pool: ProcessPoolExecutor, work: Callable[[_Task], _Result], tasks: Iterable[_Task]
) -> set[Future[_Result]]:
    with _no_interrupt():  # this starts processes
        return {pool.submit(work, task) for task in tasks}


class _Workers(SpawnContext):
    """Starts processes, and knows them all. It does not fork: a program with threads may call this."""

    def __init__(self) -> None:
        super().__init__()
        self._started: list[SpawnProcess] = []

    def Process(self, *args: Any, **options: Any) -> SpawnProcess:  # type: ignore[override]  # noqa: ANN401 - as there
        """A process that is about to start; the base has a class with this name."""
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
    # A worker would wait for work for ever, even if its parent was killed.
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
    """Processes that start inside this ignore Ctrl-C, even while they import: their parent stops them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
