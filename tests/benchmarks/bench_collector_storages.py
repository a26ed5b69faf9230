"""PostgreSQL against SQLite: ``make bench ARGS=tests/benchmarks/bench_collector_storages.py``.

First through the collector: the same server under the same load stores in either, and for comparison in a file that
gets each batch and an fdatasync. Then without the server: batches as the intake hands them over. All take turns, so
that a busy machine slows them alike. The reports are of one cause and of 1,024, of 2 and 12 kB. All sync to one disk.
PostgreSQL is a server of its own here, with the settings that it comes with.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from dynpin.middleware.collector import Storage, open_storage
from dynpin.middleware.collector.intake import understood
from dynpin.middleware.collector.storage import Arrival, migrate_storage
from tests.benchmarks.bench_collector import BODIES, CAUSES, ROUNDS, SECONDS, load, requests, served
from tests.benchmarks.turns import tell
from tests.middleware.collector.conftest import NOW
from tests.postgres import running

BATCH, BATCHES, TURNS = 256, 8, 15
PLAIN, SQLITE, POSTGRESQL = "a file and fdatasync", "SQLite", "PostgreSQL"
# Other tests have a smaller server that syncs nothing: here is what initdb and Debian set.
SETTINGS = {"autovacuum": "on", "fsync": "on", "full_page_writes": "on", "jit": "on"}
SETTINGS |= {"max_wal_size": "1GB", "shared_buffers": "128MB"}
causes = pytest.mark.parametrize("cause", ["of one cause", "of 1,024 causes"])
sizes = pytest.mark.parametrize("size", BODIES)


def compare(what: str, rates: Mapping[str, Sequence[float]]) -> None:
    """Print the best of each, which is the turn that other work on the machine disturbed least, and the ratios."""
    best = {name: max(found) for name, found in rates.items()}
    figures = {name: f"{rate:.0f}/s" for name, rate in best.items()}
    if PLAIN in best:
        figures["SQLite of the file"] = f"{best[SQLITE] / best[PLAIN]:.2f}"
    # A machine that is always busy disturbs every turn, and some more than others.
    middle = statistics.median(a / b for a, b in zip(rates[POSTGRESQL], rates[SQLITE], strict=True))
    tell(what, **figures, ratio=f"{best[POSTGRESQL] / best[SQLITE]:.2f}", of_each_turn=f"{middle:.2f}", aim="0.5")


@sizes
@causes
def test_durable_reports_a_second_through_the_collector(
    cause: str, size: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sent = requests(CAUSES[cause](size))
    rates: dict[str, list[float]] = {name: [] for name in (PLAIN, SQLITE, POSTGRESQL)}
    with running(**SETTINGS) as cluster:
        for _ in range(ROUNDS):
            for name, found in rates.items():
                with ExitStack() as stack:
                    address = stack.enter_context(cluster.database()) if name == POSTGRESQL else ""
                    if address:
                        migrate_storage(address)
                    form = PLAIN if name == PLAIN else "the collector"
                    port = stack.enter_context(served(form, address=address))
                    asyncio.run(load(port, sent, 0.5))
                    rate, _, statuses = asyncio.run(load(port, sent, SECONDS))
                    assert statuses == {b"204"}
                    found.append(rate)
    with capsys.disabled():
        compare(f"collector: {size}, {cause}", rates)


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


@sizes
@causes
def test_durable_reports_a_second(cause: str, size: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running(**SETTINGS) as cluster, cluster.database() as address:
        migrate_storage(address)
        storages = {SQLITE: open_storage(tmp_path / "r.sqlite"), POSTGRESQL: open_storage(address)}
        some = batches(cause, size)
        rates: dict[str, list[float]] = {name: [] for name in storages}
        for turn in range(TURNS + 1):
            for name, storage in storages.items():
                rate = reports_a_second(storage, some)
                if turn:  # the first one warms up
                    rates[name].append(rate)
        for storage in storages.values():
            storage.close()
    with capsys.disabled():
        compare(f"storages: {size}, {cause}", rates)
