"""What tests of the storages share: a report to write, a question to ask, and the time."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text

from dynpin.middleware.collector.intake import understood
from dynpin.middleware.collector.storage import Arrival
from dynpin.middleware.collector.storage.sql import SQLStorage
from tests.clock import Clock
from tests.middleware.collector.conftest import NOW, report


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
