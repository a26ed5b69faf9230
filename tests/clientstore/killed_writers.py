"""Processes that write to one store, one of which is killed again and again.

Shared by test_freshness.py, which runs it briefly, and by the stress test, which runs it for long.
"""

from __future__ import annotations

import contextlib
import json
import random
import select
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from dynpin import KnownPinnedHost, Pin
from dynpin.clientstore import PinStore
from dynpin.clientstore.store import check

from .sharing import BACKUP, LEAF, ended, header, hear, patiently, start, tell

__all__ = ["VICTIMS", "kill_a_writer"]

OTHERS = 3


def note(path: Path, names: Iterator[str]) -> Iterator[str]:
    store = PinStore(path)
    for name in names:
        assert patiently(partial(store.note, name, header(BACKUP), [LEAF])).outcome == "noted"
        yield name


def open_for_each(path: Path, names: Iterator[str]) -> Iterator[str]:
    for name in names:
        with patiently(partial(PinStore, path)) as store:
            patiently(partial(store.pin, name, [LEAF, BACKUP]))
        yield name


def merge(path: Path, names: Iterator[str]) -> Iterator[str]:
    store = PinStore(path)
    for name in names:
        now = time.time()
        entries = [KnownPinnedHost(f"{n}.{name}", (LEAF, BACKUP), True, None, now, now + 1000) for n in range(100)]
        assert patiently(partial(store.merge, entries)) == 100
        yield entries[0].host
        yield entries[-1].host


def forget(path: Path, names: Iterator[str]) -> Iterator[str]:
    store = PinStore(path)
    for name in names:
        patiently(partial(store.pin, name, [LEAF]))
        assert patiently(partial(store.forget, name))
        yield f"-{name}"


def vacuum(path: Path, names: Iterator[str]) -> Iterator[str]:
    with contextlib.closing(sqlite3.connect(path, timeout=30)) as connection:
        for _ in names:
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            yield ""


# The work of the killed process: each function returns what it did, with a dash before a host that was forgotten.
VICTIMS: dict[str, Callable[[Path, Iterator[str]], Iterator[str]]] = {
    "notes": note,
    "opens and closes the store for each pin": open_for_each,
    "imports hosts in sets": merge,
    "forgets": forget,
    "vacuums the file": vacuum,
}


def kill_a_writer(path: Path, does: str, kills: int) -> int:
    """Kill a process again and again while three others note. Returns the number of hosts at the end; none is lost."""
    chance = random.Random(does)
    PinStore(path).close()
    acknowledged: set[str] = set()
    noted: dict[str, Pin] = {}
    with contextlib.ExitStack() as stack:
        others = [
            stack.enter_context(ended(start(__name__, "note", str(path), f"other{n}.test"))) for n in range(OTHERS)
        ]
        for number in range(kills):
            with ended(start(__name__, "act", str(path), f"victim{number}.test", does)) as victim:
                assert victim.stdout is not None
                assert hear(victim) == "ready"
                for _ in range(chance.randrange(8)):
                    acknowledged.add(victim.stdout.readline().strip())
                for _ in range(chance.randrange(20_000)):  # a random time within the next write
                    pass
                victim.send_signal(signal.SIGKILL)
                acknowledged |= {line.strip() for line in victim.stdout if line.endswith("\n")}
                assert victim.wait() == -signal.SIGKILL
        for other in others:
            tell(other, "end")
            noted |= {name: Pin.from_base64(text) for name, text in json.loads(hear(other)).items()}
    forgotten = {name[1:] for name in acknowledged if name.startswith("-")}
    with PinStore(path) as store:
        kept = {entry.host: entry.pins[-1] for entry in store.hosts()}
        now = store.clock()
    noted |= {name: BACKUP for name in acknowledged if name and not name.startswith("-")}
    lost = {name for name, pin in noted.items() if kept.get(name) != pin}
    assert (lost, forgotten & kept.keys(), check(path, now)) == (set(), set(), [])
    return len(noted)


def note_until_told(path: Path, domain: str) -> None:
    """Note one host after the other, and check the last noted one of each, whatever happens to the other processes."""
    store, chance = PinStore(path), random.Random(domain)
    noted: dict[str, Pin] = {}
    number = 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        number += 1
        host, pin = f"h{number % 200}.{domain}", Pin(number.to_bytes(32))
        assert patiently(partial(store.note, host, header(pin), [LEAF])).outcome in ("noted", "updated")
        noted[host] = pin
        host, pin = chance.choice(list(noted.items()))
        known = store.known_host(host)
        assert known is not None
        assert known.pins[-1] == pin
    print(json.dumps({host: str(pin) for host, pin in noted.items()}), flush=True)


def act(path: Path, domain: str, does: str) -> None:
    """Do it for one name after the other, and report each."""
    print("ready", flush=True)
    number = iter(range(sys.maxsize))
    for done in VICTIMS[does](path, (f"h{n}.{domain}" for n in number)):
        print(done, flush=True)


if __name__ == "__main__":
    role, file, *rest = sys.argv[1:]
    if role == "note":
        note_until_told(Path(file), *rest)
    else:
        act(Path(file), *rest)
