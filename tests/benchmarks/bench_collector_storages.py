"""PostgreSQL against SQLite: ``make bench ARGS=tests/benchmarks/bench_collector_storages.py``.

Batches as the intake hands them over, written durably by each storage in turns, so that a busy machine slows both
alike: reports of one cause and of 1,024, of 2 and 12 kB. Both sync to a disk; PostgreSQL is a server of its own here.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dynpin.middleware.collector import Storage, open_storage
from dynpin.middleware.collector.intake import understood
from dynpin.middleware.collector.storage import Arrival, migrate_storage
from tests.benchmarks.bench_collector import BODIES, CAUSES
from tests.benchmarks.turns import tell
from tests.middleware.collector.conftest import NOW
from tests.postgres import running

BATCH, BATCHES, TURNS = 256, 8, 5


def batches(cause: str, size: str) -> Iterator[list[Arrival]]:
    """Batches without an end, with the same reports over and over."""
    arrivals: list[Arrival] = []
    for body in CAUSES[cause](size):
        told = understood(body, "enforce")
        seen = told.observed_at, told.expires_at
        arrivals.append(Arrival(told.cause, told.flags, *seen, "demo", "192.0.2.0/24", "ua", NOW, json.dumps(body)))
    endless = itertools.cycle(arrivals)
    while True:
        yield list(itertools.islice(endless, BATCH))


def reports_a_second(storage: Storage, some: Iterator[list[Arrival]]) -> float:
    batched = list(itertools.islice(some, BATCHES))
    begun = time.perf_counter()
    for batch in batched:
        storage.add(batch, {})
    return BATCH * BATCHES / (time.perf_counter() - begun)


@pytest.mark.parametrize("size", BODIES)
@pytest.mark.parametrize("cause", ["of one cause", "of 1,024 causes"])
def test_durable_reports_a_second(cause: str, size: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running(fsync="on", full_page_writes="on") as cluster, cluster.database() as address:
        migrate_storage(address)
        storages = {"SQLite": open_storage(tmp_path / "r.sqlite"), "PostgreSQL": open_storage(address)}
        some = batches(cause, size)
        rates: dict[str, list[float]] = {name: [] for name in storages}
        for _ in range(TURNS + 1):
            for name, storage in storages.items():
                rates[name].append(reports_a_second(storage, some))
        for storage in storages.values():
            storage.close()
    # The best of each is the turn that other work on the machine disturbed least; the first one warms up.
    best = {name: max(found[1:]) for name, found in rates.items()}
    ratio = best["PostgreSQL"] / best["SQLite"]
    with capsys.disabled():
        figures = {name.lower(): f"{rate:.0f}/s" for name, rate in best.items()}
        tell(f"storages: {size}, {cause}", **figures, ratio=f"{ratio:.2f}", aim="0.5 at least")
