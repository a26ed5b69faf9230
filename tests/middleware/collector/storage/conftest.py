"""The storages that there are: no other test knows how many."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from dynpin.middleware.collector.intake import understood
from dynpin.middleware.collector.storage import Arrival, migrate_storage, open_storage
from dynpin.middleware.collector.storage.sql import SQLStorage
from tests.middleware.collector.conftest import NOW, Clock, report
from tests.postgres import Cluster


def arrival(host: str = "a.test", at: float = NOW, **options: Any) -> Arrival:
    """A report that the intake accepted."""
    read = understood(report(hostname=host, noted_hostname=host), "enforce")
    told = {"token": "t", "source": "192.0.2.0/24", "user_agent": "ua", "received_at": at, "body": "{}", **options}
    return Arrival(read.cause, read.flags, read.observed_at, read.expires_at, **told)


def ask(storage: SQLStorage, sql: str) -> list[tuple[Any, ...]]:
    """What SQL finds that both speak."""
    with storage.reading() as unit:
        return [tuple(row) for row in unit.db.execute(text(sql))]


def change(storage: SQLStorage, sql: str) -> None:
    """Change what no interface changes."""
    with storage.writing() as unit:
        unit.db.execute(text(sql))


@pytest.fixture
def clock() -> Clock:
    """Time that moves when the test says so."""
    return Clock()


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
