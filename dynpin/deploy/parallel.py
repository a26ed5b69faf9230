"""Run several network requests at once, with a limit on their number."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

__all__ = ["all_of", "as_they_end"]

Answer = TypeVar("Answer")

AT_ONCE = 16


def all_of(jobs: Sequence[Callable[[], Answer]], at_once: int = AT_ONCE) -> list[Answer]:
    """The answers of all jobs, in their order; `at_once` of them run at a time. The first error is raised."""
    if len(jobs) == 1:
        return [jobs[0]()]
    answers = dict(as_they_end(jobs, at_once))
    return [answers[number] for number in range(len(jobs))]


def as_they_end(jobs: Iterable[Callable[[], Answer]], at_once: int = AT_ONCE) -> Iterator[tuple[int, Answer]]:
    """Number and answer of each job as it ends. The first error is raised, and no further job is started.

    The threads are daemons, unlike those of concurrent.futures: Ctrl-C does not wait for a host that is silent.
    """
    waiting = enumerate(jobs)
    ended: queue.SimpleQueue[tuple[int, Answer | None, BaseException | None]] = queue.SimpleQueue()
    begun: queue.SimpleQueue[tuple[int, Callable[[], Answer]] | None] = queue.SimpleQueue()

    def work() -> None:
        while (item := begun.get()) is not None:
            number, job = item
            try:
                ended.put((number, job(), None))
            except BaseException as error:  # noqa: BLE001 - raised where the answers are awaited
                ended.put((number, None, error))

    first = list(islice(waiting, at_once))
    for each in first:
        begun.put(each)
        threading.Thread(target=work, name="dynpin-look", daemon=True).start()
    running = len(first)
    try:
        while running:
            number, answer, error = ended.get()
            running -= 1
            if error is not None:
                raise error
            following = next(waiting, None)
            if following is not None:
                begun.put(following)
                running += 1
            yield number, answer  # type: ignore[misc] # no error: there is an answer
    finally:
        for _ in first:
            begun.put(None)
