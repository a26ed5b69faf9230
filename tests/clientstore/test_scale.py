"""A store does not load its hosts: opening, look-up and memory are the same with a thousand hosts and with more."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dynpin.clientstore import PinStore

from ..benchmarks.crowd import fill_store, host

OPEN_AND_LOOK_UP = """
import json, os, sys, time, tracemalloc
from dynpin import Pin
from dynpin.clientstore import PinStore
def resident_kib():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
with PinStore(sys.argv[3]) as warm:
    warm.known_host("warm.test")  # what Python and SQLite take once, whatever the store
before, begun = resident_kib(), time.perf_counter()
tracemalloc.start()
store = PinStore(sys.argv[1])
known = store.known_host(sys.argv[2])
seconds = time.perf_counter() - begun
assert known is not None and not store.validate(sys.argv[2], [Pin(bytes(32))]).ok
assert store.known_host("unknown.example") is None
print(json.dumps({"kib": resident_kib() - before, "traced": tracemalloc.get_traced_memory()[1], "seconds": seconds}))
"""


def opened(path: Path, name: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-c", OPEN_AND_LOOK_UP, str(path), name, str(path.with_name("warm"))],
        capture_output=True,
        text=True,
        check=True,
    )
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc")
def test_memory_does_not_grow_with_the_number_of_hosts(tmp_path: Path) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    fill_store(small, 1_000)
    fill_store(large, 100_000)
    assert large.stat().st_size > 15_000_000
    few, many = opened(small, host(500)), opened(large, host(50_000))
    assert many["traced"] < few["traced"] + 50_000
    assert many["kib"] < few["kib"] + 2_048


def test_a_look_up_among_many_descends_one_tree(tmp_path: Path) -> None:
    path = tmp_path / "pins"
    fill_store(path, 2_000)
    with PinStore(path) as store:
        for statement, key in (
            ("SELECT * FROM hosts WHERE host IN ('a.b', 'b')", "PRIMARY KEY (host=?)"),
            ("SELECT host FROM hosts WHERE source = 'static' AND origin = 'x'", "preloaded (origin=?)"),
            (
                "SELECT 1 FROM hosts WHERE source = 'header' AND origin IS NULL AND reversed >= 'a' AND reversed < 'b'",
                "COVERING INDEX noted (reversed>? AND reversed<?)",
            ),
            ("SELECT * FROM reports WHERE next_attempt_at <= 5", "next_attempt_at<?"),
        ):
            plan = [row[3] for row in store.database.select(f"EXPLAIN QUERY PLAN {statement}")]
            assert plan[0].startswith("SEARCH")
            assert key in plan[0]
