"""What the store costs: opening, look-ups, notings. docs/explanation/performance.md has the table.

``make bench ARGS=tests/benchmarks/bench_store.py``
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme

from dynpin import Pin
from dynpin.clientstore import PinStore
from dynpin.lab.network import TLSServer

from .crowd import fill_store, fill_wget2, host
from .turns import Turns, against, tell

SIZES = (1_000, 1_000_000)
WGET2 = shutil.which("wget2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench")


@pytest.fixture(scope="module")
def stores(folder: Path) -> dict[int, Path]:
    """A store of each size."""
    paths = {size: folder / f"store-{size}" for size in SIZES}
    for size, path in paths.items():
        fill_store(path, size)
    return paths


# -- opening ----------------------------------------------------------------------------------------------------------

OPEN = """
import json, os, sys, time
from dynpin.clientstore import PinStore
def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
before, begun = resident(), time.perf_counter()
known = PinStore(sys.argv[1]).known_host(sys.argv[2])
seconds = time.perf_counter() - begun
assert known is not None
print(json.dumps([seconds * 1e3, (resident() - before) / 1e6]))
"""


def test_opening_and_the_first_look_up(stores: dict[int, Path]) -> None:
    runs: dict[int, list[list[float]]] = {size: [] for size in SIZES}
    for number in range(31):
        for size in SIZES:
            command = [sys.executable, "-c", OPEN, str(stores[size]), host(number * size // 31)]
            runs[size].append(json.loads(subprocess.run(command, capture_output=True, check=True).stdout))
    small = statistics.median(run[0] for run in runs[SIZES[0]])
    for size in SIZES:
        milliseconds, megabytes = zip(*runs[size], strict=True)
        median = statistics.median(milliseconds)
        tell(
            f"open and first look-up, {size:,} hosts",
            median_ms=f"{median:.2f}",
            fastest_ms=f"{min(milliseconds):.2f}",
            aim=against(2, min(milliseconds)),
            MB=f"{statistics.median(megabytes):.1f}",
            of_the_small_one=f"{median / small:.2f}",
            aim_of_that=against(1.25, median / small),
        )


@pytest.mark.skipif(WGET2 is None, reason="wget2 is not installed: apt-get install wget2")
def test_wget2_with_the_same_million(folder: Path) -> None:
    assert WGET2 is not None
    authority = trustme.CA()
    roots = folder / "roots.pem"
    roots.write_bytes(authority.cert_pem.bytes())
    figures: dict[int, tuple[float, float]] = {}
    with TLSServer(authority.issue_cert("localhost")) as server:
        for size in (1, SIZES[-1]):
            file = folder / f"hpkp-{size}"
            fill_wget2(file, size)
            command = [WGET2, "--no-config", "--hpkp", f"--hpkp-file={file}", f"--ca-certificate={roots}", "--no-hsts"]
            command += ["--tries=1", "--no-ocsp", "--no-tls-resume", "-q", "-O", "/dev/null", server.url("localhost")]
            begun = time.perf_counter()
            child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            figures[size] = (time.perf_counter() - begun, usage.ru_maxrss / 1e3)
            assert child.returncode == 0
    (bare, bare_mb), (full, full_mb) = figures.values()
    tell(
        "wget2 with 1,000,000 hosts, beyond an empty run",
        ms=f"{(full - bare) * 1e3:.0f}",
        MB=f"{full_mb - bare_mb:.0f}",
    )


# -- look-ups and notings ---------------------------------------------------------------------------------------------


def test_a_warm_look_up_beside_a_select(folder: Path) -> None:
    with PinStore(folder / "lookup") as store, contextlib.closing(sqlite3.connect(folder / "lookup")) as plain:
        store.pin("api.bank.example", [Pin(bytes(32))])
        for what, name in (("a pinned host", "api.bank.example"), ("an unknown host", "www.unknown.example")):
            select = functools.partial(plain.execute, "SELECT * FROM hosts WHERE host = ?", (name,))
            asks: tuple[Callable[[], object], ...] = (
                lambda select=select: select().fetchall(),  # type: ignore[misc] # mypy knows no default
                functools.partial(store.known_host, name),
            )
            turns = Turns()
            for _ in range(200):
                for pinned in turns.order():
                    with turns.turn(pinned):
                        for _ in range(500):
                            asks[pinned]()
            turns.tell_processor(f"warm look-up of {what}, beside a SELECT", 500)


NOTE = """
import os, sys, time
from dynpin import Pin, StoreError
from dynpin.clientstore import PinStore
from dynpin.clientstore.store import registrable_domain
kind, path, worker, count = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
leaf, backup = (Pin(bytes([n]) * 32) for n in (1, 2))
registrable_domain("warm.example")
if kind == "note":
    store = PinStore(path)
else:
    file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
print("ready", flush=True)
sys.stdin.readline()
again, begun = 0, time.process_time()
for number in range(count):
    if kind == "note":
        header = f'pin-sha256="{leaf}"; pin-sha256="{backup}"; max-age={1000000 + number}'
        noting = None
        while noting is None:
            try:
                noting = store.note(f"h{number}.w{worker}.example", header, [leaf])
            except StoreError as error:  # the others have written for longer than a second
                assert "Try again" in str(error), error
                again += 1
        assert noting.outcome == "noted", noting
    else:
        os.write(file, b"x" * 200)
        os.fdatasync(file)
print(again, time.process_time() - begun)
"""


class Rate(NamedTuple):
    per_second: float
    processor_us: float
    tried_again: int


def rate(kind: str, path: Path, workers: int, count: int) -> Rate:
    with contextlib.ExitStack() as stack:
        children = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", NOTE, kind, str(path), str(worker), str(count)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for worker in range(workers)
        ]
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        begun = time.perf_counter()
        for child in children:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.close()
        assert [child.wait() for child in children] == [0] * workers
        per_second = workers * count / (time.perf_counter() - begun)
        said = [child.stdout.read().split() for child in children if child.stdout is not None]
        processor = sum(float(seconds) for _, seconds in said)
        return Rate(per_second, processor / (workers * count) * 1e6, sum(int(again) for again, _ in said))


@pytest.mark.parametrize("workers", [1, 8])
def test_notings_beside_append_and_fdatasync(folder: Path, workers: int) -> None:
    rates: list[tuple[Rate, Rate]] = []
    count = 800 // workers
    for turn in range(7):
        store, plain = folder / f"notes-{workers}-{turn}", folder / f"appended-{workers}-{turn}"
        PinStore(store).close()
        # One process appends, however many note: that is what the disk can do for somebody who shares no syncs.
        rates.append((rate("note", store, workers, count), rate("append", plain, 1, 400)))
        with PinStore(store) as kept:
            assert len(kept) == workers * count  # none is lost
    ratios = sorted(notings.per_second / appends.per_second for notings, appends in rates)
    tell(
        f"durable notings a second, {workers} processes",
        notings=f"{statistics.median(notings.per_second for notings, _ in rates):.0f}",
        appends=f"{statistics.median(appends.per_second for _, appends in rates):.0f}",
        ratio=f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})",
        processor_us=f"{statistics.median(notings.processor_us for notings, _ in rates):.0f}",
        tried_again=sum(notings.tried_again for notings, _ in rates),
    )


def test_noting_a_new_host_in_a_large_store(stores: dict[int, Path]) -> None:
    """Under the lock of those who write the bounds count what was noted before."""
    leaf, backup = Pin(bytes([1]) * 32), Pin(bytes([2]) * 32)
    header = f'pin-sha256="{leaf}"; pin-sha256="{backup}"; max-age=1000000'
    for size, path in stores.items():
        milliseconds: list[float] = []
        with PinStore(path, max_hosts=2 * size) as store:
            for number in range(31):
                begun = time.perf_counter()
                assert store.note(f"www.new{number}.example", header, [leaf]).outcome == "noted"
                milliseconds.append((time.perf_counter() - begun) * 1e3)
        median = statistics.median(milliseconds)
        tell(f"noting a new host, {size:,} hosts", median_ms=f"{median:.1f}", aim=against(200, median))
