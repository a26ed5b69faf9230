"""The storages that there are, and the tests that run on each: no other test knows how many."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from dynpin.middleware.collector.storage import Triaged, migrate_storage, open_storage
from dynpin.middleware.collector.storage.sql import SQLStorage
from tests.clock import Clock
from tests.postgres import Cluster

DAY = 86_400.0
PIN = "d6qzRu9zOECb90Uez27xWltNsj0e1Md7GkYYkVoZWmM="

Make = Callable[[], SQLStorage]


@pytest.fixture(params=["sqlite", "postgresql"])
def make(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Make]:
    """Opens one storage, as often as it is called."""
    with ExitStack() as stack:
        if request.param == "sqlite":
            address: str | Path = tmp_path / "reports.sqlite"
        else:
            cluster: Cluster = request.getfixturevalue("cluster")
            address = stack.enter_context(cluster.database(cluster.template("collector", migrate_storage)))

        def opened() -> SQLStorage:
            storage = open_storage(address, clock=clock)
            stack.callback(storage.close)
            return storage

        yield opened


@pytest.fixture
def storage(make: Make) -> SQLStorage:
    """An empty storage."""
    return make()


def judge(storage: SQLStorage, verdict: str = "undecided") -> None:
    """Give a verdict to all that wait for one."""
    waiting = storage.untriaged(99, "x")
    pins = ((PIN, "known", "CA"),)
    storage.set_verdicts((group, Triaged(verdict, "unclear", "CA", "{}", pins, "x")) for group, _, _ in waiting)


def together(work: Callable[[int], object], number: int) -> None:
    """Call it in so many threads, each with a number of its own; what one raises is raised."""
    with ThreadPoolExecutor(number) as threads:
        list(threads.map(work, range(number)))
