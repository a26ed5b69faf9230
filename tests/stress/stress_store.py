"""One store at length: each of 10,000 commits seen by all at once, writers killed, eight processes of four threads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dynpin.clientstore import PinStore
from dynpin.clientstore.store import check

from ..clientstore.killed_writers import VICTIMS, kill_a_writer
from ..clientstore.sharing import ROOT
from ..clientstore.written_and_read import write_and_tell

# In Python 3.13 a connection that an exception has orphaned warns when it is freed.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore:.*unclosed database")

COMMITS = int(os.environ.get("STRESS_COMMITS", "10000"))
KILLS = int(os.environ.get("STRESS_KILLS", "100"))
SECONDS = float(os.environ.get("STRESS_SECONDS", "60"))
PROCESSES, THREADS = 8, 4

WORKER = """
import json, random, sys, threading, time
from functools import partial
from dynpin import Pin
from dynpin.clientstore import PinStore
from tests.clientstore.sharing import patiently

path, process, threads, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
keys = [Pin(bytes([number]) * 32) for number in range(8)]
stranger = Pin(b"stranger" * 4)
store = PinStore(path)
end = time.monotonic() + seconds
final, counts, lock = {}, {"noted": 0, "forgotten": 0, "validated": 0, "shared": 0}, threading.Lock()

def header(leaf, backup):
    return f'pin-sha256="{leaf}"; pin-sha256="{backup}"; max-age=1000000'

def work(thread):
    chance = random.Random(f"{process}.{thread}")
    own, did = {}, dict.fromkeys(counts, 0)
    while time.monotonic() < end:
        host = f"h{chance.randrange(20)}.t{thread}.p{process}.example"
        known = own.get(host)
        act = chance.random()
        if act < 0.35:
            # A key that the host is pinned to signs the change, as Pin Validation demands.
            leaf = known[0] if known else chance.choice(keys)
            backup = chance.choice([key for key in keys if key != leaf])
            noting = patiently(partial(store.note, host, header(leaf, backup), [leaf]))
            assert noting.outcome == ("updated" if known else "noted"), (noting, known)
            own[host] = (leaf, backup)
            did["noted"] += 1
        elif act < 0.5:
            assert patiently(partial(store.forget, host)) == (known is not None), (host, known)
            own.pop(host, None)
            did["forgotten"] += 1
        else:
            entry = store.known_host(host)
            assert (entry.pins if entry else None) == known, (host, entry, known)
            assert store.validate(host, [stranger]).ok == (known is None)
            if known:
                assert store.validate(host, [known[1]]).ok
            did["validated"] += 1
        # What all of them fight over: whatever stands there is whole.
        shared = f"s{chance.randrange(3)}.shared.example"
        patiently(partial(store.note, shared, header(keys[0], chance.choice(keys[1:])), [keys[0]]))
        entry = store.known_host(shared)
        assert entry is None or (entry.pins[0] == keys[0] and len(entry.pins) == 2), entry
        if chance.random() < 0.1:
            patiently(partial(store.forget, shared))
        did["shared"] += 1
    with lock:
        final.update({host: [str(pin) for pin in pins] for host, pins in own.items()})
        for name, number in did.items():
            counts[name] += number

errors = []
def guarded(thread):
    try:
        work(thread)
    except BaseException as error:
        errors.append(repr(error))

workers = [threading.Thread(target=guarded, args=(number,)) for number in range(threads)]
for worker in workers: worker.start()
for worker in workers: worker.join()
print(json.dumps({"final": final, "counts": counts, "errors": errors}))
"""


def test_many_processes_and_threads_share_one_file(tmp_path: Path) -> None:
    file = tmp_path / "pins"
    PinStore(file).close()
    children = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(file), str(number), str(THREADS), str(SECONDS)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(PROCESSES)
    ]
    expected: dict[str, list[str]] = {}
    acts: dict[str, int] = {}
    for child in children:
        out, _ = child.communicate(timeout=SECONDS * 3 + 120)
        told = json.loads(out)
        assert told["errors"] == []
        expected.update(told["final"])
        for name, number in told["counts"].items():
            acts[name] = acts.get(name, 0) + number
    print(f"\n{acts}, {len(expected)} hosts at the end")
    assert all(acts.values())
    with PinStore(file) as store:
        kept = {entry.host: [str(pin) for pin in entry.pins] for entry in store.hosts()}
        now = store.clock()
    shared = {host for host in kept if host.endswith(".shared.example")}
    assert {host: pins for host, pins in kept.items() if host not in shared} == expected
    assert check(file, now) == []


def test_each_commit_is_seen_by_all_before_the_next_one(tmp_path: Path) -> None:
    figures = write_and_tell(tmp_path / "pins", COMMITS)
    print(f"\n{COMMITS} commits: {figures}")
    assert all(of_process["stops"] and of_process["left_open"] == [] for of_process in figures.values())


@pytest.mark.parametrize("does", list(VICTIMS))
def test_a_writer_that_is_killed_takes_nothing_acknowledged_along(tmp_path: Path, does: str) -> None:
    hosts = kill_a_writer(tmp_path / "pins", does, KILLS)
    print(f"\n{KILLS} kills of a process that {does}: {hosts} hosts, none lost")
