"""One process that writes to a store, and three that must see each write before the next one.

Shared by test_freshness.py, which runs it briefly, and by the stress test, which runs it for long.
"""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from types import FrameType
from typing import TypedDict, TypeVar

from dynpin import KnownPinnedHost, Pin
from dynpin.clientstore import PinStore

from .opened import files_left_open
from .sharing import LEAF, ended, header, hear, patiently, start, tell

__all__ = ["write_and_tell"]

READERS = 3
# One host for each kind of write.
NOTED, PINNED, MERGED = "noted.test", "pinned.test", "merged.test"
HOSTS = (NOTED, PINNED, MERGED)

_Value = TypeVar("_Value")


class Figures(TypedDict):
    """The figures of one process: interrupted calls, openings of the store, and files left open."""

    stops: int
    openings: int
    left_open: list[str]


# -- signals ----------------------------------------------------------------------------------------------------------


class Stop(BaseException):
    """Raised by the signal handler."""


class Interrupted:
    """Calls that signals interrupt; an interrupted call is repeated.

    Attributes:
        stops: how many calls were interrupted.
    """

    def __init__(self, chance: random.Random) -> None:
        self.stops = 0
        self._chance = chance
        self._armed = False
        signal.signal(signal.SIGALRM, self._stop)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self._armed:  # otherwise the signal came late, after the call
            self._armed = False
            raise Stop

    def call(self, act: Callable[[], _Value]) -> _Value:
        # From 5 µs to 5 ms, the length of the calls. The time grows with each attempt, so that each call ends.
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
    """The work of each of the four: interrupted calls on the store; now and then its connections close."""

    def __init__(self, path: Path, chance: random.Random, interrupted: Interrupted) -> None:
        self._path, self._chance, self._interrupted = path, chance, interrupted
        self._store = self._open()
        self._openings = 0

    def _open(self) -> PinStore:
        return self._interrupted.call(lambda: PinStore(self._path))

    def call(self, act: Callable[[PinStore], _Value]) -> _Value:
        return self._interrupted.call(lambda: act(self._store))

    def pin_of(self, host: str) -> Pin | None:
        """The pin of a host that its commits change, looked up by its own name or by one below it."""
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
        """Close the store, and return the figures."""
        self.call(PinStore.close)
        left_open = files_left_open(self._path)
        return {"stops": self._interrupted.stops, "openings": self._openings, "left_open": left_open}


# -- one writes, three must see it ------------------------------------------------------------------------------------


def change(number: int) -> tuple[str, Pin | None]:
    """The host that a commit changes, and its pin from then on, or None if it is forgotten."""
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
    """Commit, and let each reader see exactly that before the next commit. Returns the figures of each process.

    At random times in between, the `sqlite3` program vacuums the file or merges the log into it.
    """
    chance = random.Random(0)
    PinStore(path).close()
    with contextlib.ExitStack() as stack:
        readers = [stack.enter_context(ended(start(__name__, str(path), str(n)))) for n in range(READERS)]
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
    """At each turn, start a program that vacuums the file or merges its log, after the last one has ended."""
    python = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=30).execute(sys.argv[2]).fetchall()"
    program = shutil.which("sqlite3")
    command = [program, "-cmd", ".timeout 30000"] if program else [sys.executable, "-c", python]
    while True:
        for statement in ("VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"):
            with subprocess.Popen([*command, str(path), statement], stdout=subprocess.DEVNULL) as running:
                yield
            assert running.returncode == 0


def read(path: Path, seed: int) -> None:
    """See exactly what the writer has committed; during its next commit, see the old or the new state."""
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


if __name__ == "__main__":
    read(Path(sys.argv[1]), int(sys.argv[2]))
