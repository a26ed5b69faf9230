"""Work shared among processes that end when their parent does, and leave Ctrl-C to it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from typing import TypeVar

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
    # Not forked: a program with threads may call this.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_begin, initargs=(prepare,))
    try:
        with _no_interrupt():
            # Held by nobody else, so that a result is gone once it is used.
            finished = as_completed([pool.submit(work, task) for task in tasks])
        for done in finished:
            yield done.result()
    finally:
        # After Ctrl-C no more than the tasks that have begun are waited for.
        pool.shutdown(cancel_futures=True)


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
