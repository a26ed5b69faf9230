"""Processes that share one store: one that writes and three that must see it; and writers of which one is killed.

The code of test_freshness.py, which does little of it, and of the stress, which does much.
"""

from __future__ import annotations

import contextlib
import json
import random
import select
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TypedDict, TypeVar

from dynpin import KnownPinnedHost, Pin, StoreError
from dynpin.clientstore import PinStore
from dynpin.clientstore.store import check

from .opened import files_left_open

__all__ = [
    "ROOT",
    "VICTIMS",
    "in_memory",
    "kill_a_writer",
    "patiently",
    "write_and_tell",
]

ROOT = Path(__file__).parents[2]
LEAF, BACKUP = Pin(bytes([1]) * 32), Pin(bytes([2]) * 32)
READERS = OTHERS = 3
# One host for each way to write.
NOTED, PINNED, MERGED = "noted.test", "pinned.test", "merged.test"
HOSTS = (NOTED, PINNED, MERGED)
# Nobody needs that long, on whatever machine; so who has not answered by then never will.
STUCK_AFTER = 120.0

_Value = TypeVar("_Value")


class Figures(TypedDict):
    """Of one process: calls that a signal interrupted, openings of the store, and files that it has left open."""

    stops: int
    openings: int
    left_open: list[str]


@contextlib.contextmanager
def in_memory() -> Generator[Path]:
    """A folder that waits for no disk, where the system has one."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


def header(backup: Pin) -> str:
    return f'pin-sha256="{LEAF}"; pin-sha256="{backup}"; max-age=1000000; includeSubDomains'


def start(*arguments: str) -> subprocess.Popen[str]:
    """This module as a process of its own; what it says on stderr is shown where a test fails."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.clientstore.sharing", *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def tell(child: subprocess.Popen[str], line: object) -> None:
    assert child.stdin is not None
    print(line, file=child.stdin, flush=True)


def hear(child: subprocess.Popen[str]) -> str:
    """One line, for which the child waits until it is told more."""
    assert child.stdout is not None
    assert select.select([child.stdout], [], [], STUCK_AFTER)[0], "it is stuck"
    line = child.stdout.readline()
    assert line, "it has failed"
    return line.rstrip("\n")


@contextlib.contextmanager
def ended(child: subprocess.Popen[str]) -> Generator[subprocess.Popen[str]]:
    """Have the child gone at the end, whatever happens."""
    with child:
        try:
            yield child
        except BaseException:
            child.kill()
            assert child.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                child.stdin.close()  # with what the child did not take
            raise


def patiently(act: Callable[[], _Value], attempts: int = 20) -> _Value:
    """Do what the store says where others write without a pause, which no client does: try again."""
    while True:
        try:
            return act()
        except StoreError as error:
            attempts -= 1
            if "try again" not in str(error).lower() or not attempts:
                raise


# -- signals ----------------------------------------------------------------------------------------------------------


class Stop(BaseException):
    """What the handler of the signal raises."""


class Interrupted:
    """Calls into which signals raise; an interrupted call is made again.

    Attributes:
        stops: how many were interrupted.
    """

    def __init__(self, chance: random.Random) -> None:
        self.stops = 0
        self._chance = chance
        self._armed = False
        signal.signal(signal.SIGALRM, self._stop)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self._armed:  # else it came late, and the call is over
            self._armed = False
            raise Stop

    def call(self, act: Callable[[], _Value]) -> _Value:
        # From 5 µs to 5 ms, which is as long as the calls take. Each time later, so that each call ends.
        delay = 10 ** self._chance.uniform(-5.3, -2.3)
        while True:
            try:
                self._armed = True
                signal.setitimer(signal.ITIMER_REAL, delay)
                try:
                    return patiently(act)
                finally:
                    self._armed = False
            except Stop:
                self.stops += 1
                delay *= 3


@contextlib.contextmanager
def interrupted(chance: random.Random) -> Generator[Interrupted]:
    before = signal.getsignal(signal.SIGALRM)
    try:
        yield Interrupted(chance)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Process:
    """What each of the four does: calls on the store that are interrupted, and now and then its connections close."""

    def __init__(self, path: Path, chance: random.Random, interrupted: Interrupted) -> None:
        self._path, self._chance, self._interrupted = path, chance, interrupted
        self._store = self._open()
        self._openings = 0

    def _open(self) -> PinStore:
        return self._interrupted.call(lambda: PinStore(self._path))

    def call(self, act: Callable[[PinStore], _Value]) -> _Value:
        return self._interrupted.call(lambda: act(self._store))

    def pin_of(self, host: str) -> Pin | None:
        """The pin of a host that its commits change, asked by its own name or by one below it."""
        name = self._chance.choice((host, f"www.{host}"))
        known = self.call(lambda store: store.known_host(name))
        return None if known is None else known.pins[-1]

    def reopen_sometimes(self) -> None:
        drawn = self._chance.random()
        if drawn < 0.05:
            self.call(PinStore.rest)
        elif drawn < 0.1:
            self.call(PinStore.close)
            self._store = self._open()
        self._openings += drawn < 0.1

    def end(self) -> Figures:
        """Close the store, and give the figures."""
        self.call(PinStore.close)
        left_open = files_left_open(self._path)
        return {"stops": self._interrupted.stops, "openings": self._openings, "left_open": left_open}


# -- one writes, three must see it ------------------------------------------------------------------------------------


def change(number: int) -> tuple[str, Pin | None]:
    """The host that a commit changes, and the pin that it has from then on, or None if it is forgotten."""
    return HOSTS[number % len(HOSTS)], None if number % 7 == 0 else Pin(number.to_bytes(32))


def commit(store: PinStore, number: int) -> None:
    host, pin = change(number)
    if pin is None:
        store.forget(host)
    elif host == NOTED:
        assert store.note(host, header(pin), [LEAF]).outcome in ("noted", "updated")
    elif host == PINNED:
        store.pin(host, [LEAF, pin], include_subdomains=True)
    else:
        store.merge([KnownPinnedHost(host, (LEAF, pin), True, None, time.time(), None, "static")])


def write_and_tell(path: Path, commits: int) -> dict[str, Figures]:
    """Commit, and have each reader see exactly that before the next one; the figures of each process.

    In between, whenever it happens to come, the `sqlite3` program vacuums the file or merges the log into it.
    """
    chance = random.Random(0)
    PinStore(path).close()
    with contextlib.ExitStack() as stack:
        readers = [stack.enter_context(ended(start("read", str(path), str(n)))) for n in range(READERS)]
        programs = stack.enter_context(contextlib.closing(other_programs(path)))
        for reader in readers:
            assert hear(reader) == "ready"
        writer = Process(path, chance, stack.enter_context(interrupted(chance)))
        state: dict[str, Pin | None] = dict.fromkeys(HOSTS)
        for number in range(1, commits + 1):
            if number % 20 == 1:
                next(programs)
            writer.call(lambda store, number=number: commit(store, number))  # type: ignore[misc] # mypy knows no default
            for reader in readers:
                tell(reader, number)
            host, state[host] = change(number)
            assert {host: writer.pin_of(host) for host in HOSTS} == state
            for reader in readers:
                assert hear(reader) == str(number)
            writer.reopen_sometimes()
        figures = {"writer": writer.end()}
        for number, reader in enumerate(readers):
            tell(reader, "end")
            figures[f"reader {number}"] = json.loads(hear(reader))
    return figures


def other_programs(path: Path) -> Generator[None]:
    """At each turn, start a program that vacuums the file, or merges its log, once the last one has ended."""
    python = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=30).execute(sys.argv[2]).fetchall()"
    program = shutil.which("sqlite3")
    command = [program, "-cmd", ".timeout 30000"] if program else [sys.executable, "-c", python]
    while True:
        for statement in ("VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"):
            with subprocess.Popen([*command, str(path), statement], stdout=subprocess.DEVNULL) as running:
                yield
            assert running.returncode == 0


def read(path: Path, seed: int) -> None:
    """See exactly what the writer tells about; while it commits what comes next, see that or what was before."""
    chance = random.Random(seed)
    with interrupted(chance) as calls:
        reader = Process(path, chance, calls)
        print("ready", flush=True)
        state: dict[str, Pin | None] = dict.fromkeys(HOSTS)
        for line in sys.stdin:
            if line == "end\n":
                print(json.dumps(reader.end()), flush=True)
                return
            number = int(line)
            host, state[host] = change(number)
            for host, pin in state.items():
                seen = reader.pin_of(host)
                assert seen == pin, f"after commit {number} {host} has {seen}, not {pin}"
            reader.reopen_sometimes()
            print(number, flush=True)
            host, pin = change(number + 1)
            arrived = False
            for _ in range(chance.randrange(8)):
                seen = reader.pin_of(host)
                assert seen in (state[host], pin), f"before commit {number + 1} {host} has {seen}"
                assert seen == pin or not arrived, f"commit {number + 1} was seen and is gone"
                arrived = seen == pin


# -- one of the writers is killed -------------------------------------------------------------------------------------


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


# What the one that is killed does: each gives what it has done, a dash before a host that it has forgotten.
VICTIMS: dict[str, Callable[[Path, Iterator[str]], Iterator[str]]] = {
    "notes": note,
    "opens and closes the store for each pin": open_for_each,
    "imports hosts in sets": merge,
    "forgets": forget,
    "vacuums the file": vacuum,
}


def kill_a_writer(path: Path, does: str, kills: int) -> int:
    """Kill a process again and again while three others note; how many hosts there are in the end, none lost."""
    chance = random.Random(does)
    PinStore(path).close()
    acknowledged: set[str] = set()
    noted: dict[str, Pin] = {}
    with contextlib.ExitStack() as stack:
        others = [stack.enter_context(ended(start("note", str(path), f"other{n}.test"))) for n in range(OTHERS)]
        for number in range(kills):
            with ended(start("act", str(path), f"victim{number}.test", does)) as victim:
                assert victim.stdout is not None
                assert hear(victim) == "ready"
                for _ in range(chance.randrange(8)):
                    acknowledged.add(victim.stdout.readline().strip())
                for _ in range(chance.randrange(20_000)):  # somewhere within what comes next
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
    """Note one host after the other, and see what was noted last of each, whatever becomes of the other processes."""
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
    """Do it for one name after the other, and tell of each."""
    print("ready", flush=True)
    number = iter(range(sys.maxsize))
    for done in VICTIMS[does](path, (f"h{n}.{domain}" for n in number)):
        print(done, flush=True)


if __name__ == "__main__":
    role, file, *rest = sys.argv[1:]
    roles: dict[str, Callable[[], None]] = {
        "read": lambda: read(Path(file), int(rest[0])),
        "note": lambda: note_until_told(Path(file), rest[0]),
        "act": lambda: act(Path(file), rest[0], rest[1]),
    }
    roles[role]()
