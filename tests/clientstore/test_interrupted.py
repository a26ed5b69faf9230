"""Exceptions from signal handlers, at any instruction: nothing acknowledged is lost, nothing stays locked or stale."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sqlite3
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

from dynpin import Pin
from dynpin.clientstore import PinStore
from dynpin.clientstore.options import Lease

from .opened import files_left_open

LEAF, BACKUP, OTHER = (Pin(bytes([number]) * 32) for number in (1, 2, 5))
HEADER = f'pin-sha256="{LEAF}"; pin-sha256="{BACKUP}"; max-age=100000'
NOW = 1_800_000_000.0
ROOM = str(Path("clientstore", "store"))

# In Python 3.13 a connection that an exception has orphaned warns when it is freed.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore:.*unclosed database")


class Stop(BaseException):
    """Raised by the signal handler."""


class StopAt:
    """A trace function that raises before one instruction of the store's code, by its number, in this thread."""

    def __init__(self, number: int) -> None:
        self.left = number

    def __call__(self, frame: FrameType, event: str, argument: object) -> StopAt | None:
        if ROOM not in frame.f_code.co_filename:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            self.left -= 1
            if self.left == 0:
                sys.settrace(None)
                raise Stop
        return self


def stopped(call: Callable[[], object], number: int) -> Stop | None:
    """Call it, with an exception at one instruction. Returns the exception, or None if there were fewer."""
    if sys.version_info >= (3, 12):
        return stopped_by_monitoring(call, number)
    sys.settrace(StopAt(number))
    try:
        call()
    except Stop as stop:
        return stop
    finally:
        sys.settrace(None)
    return None


if sys.version_info >= (3, 12):
    # Python 3.13.0 does not tell a trace function of the instructions of a function that was traced before.
    TOOL, INSTRUCTION = 4, sys.monitoring.events.INSTRUCTION

    def stopped_by_monitoring(call: Callable[[], object], number: int) -> Stop | None:
        """The same with the mechanism behind trace functions (PEP 669)."""
        left, thread = number, threading.get_ident()

        def before(code: CodeType, offset: int) -> None:
            nonlocal left
            if threading.get_ident() == thread:
                left -= 1
                if left == 0:
                    raise Stop

        sys.monitoring.use_tool_id(TOOL, "dynpin")
        try:
            sys.monitoring.register_callback(TOOL, INSTRUCTION, before)
            for code in room():
                sys.monitoring.set_local_events(TOOL, code, INSTRUCTION)
            call()
        except Stop as stop:
            return stop
        finally:
            left = -1
            sys.monitoring.register_callback(TOOL, INSTRUCTION, None)
            sys.monitoring.free_tool_id(TOOL)
        return None

    @lru_cache(maxsize=1)
    def room() -> tuple[CodeType, ...]:
        """All code of the store."""
        modules = [module for name, module in sys.modules.items() if name.startswith("dynpin.clientstore.store")]
        holders = [held for module in modules for held in (module, *vars(module).values()) if hasattr(held, "__dict__")]
        values = [value for holder in holders for value in vars(holder).values()]
        values += [
            part for value in values for part in (getattr(value, "fget", None), getattr(value, "__func__", None))
        ]
        waiting = [code for value in values if isinstance(code := getattr(value, "__code__", None), CodeType)]
        found: set[CodeType] = set()
        while waiting:
            code = waiting.pop()
            if ROOM in code.co_filename:
                found.add(code)
                waiting += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
        return tuple(found)


class Both:
    """The store under test, and another process's view of the same file."""

    def __init__(self, path: Path) -> None:
        self.store = PinStore(path, clock=lambda: NOW)
        self.other = PinStore(path, clock=lambda: NOW)
        # What a REPL keeps alive: the exceptions, and through them the frames and their objects.
        self.kept: list[BaseException] = []

    def is_sound(self) -> None:
        """Each side writes, and the other side sees it at once."""
        for writer, reader in ((self.store, self.other), (self.other, self.store)):
            writer.pin("probe.test", [LEAF])
            assert not reader.validate("probe.test", [OTHER]).ok
            writer.forget("probe.test")
            assert reader.validate("probe.test", [OTHER]).ok


@pytest.fixture
def both() -> Iterator[Both]:
    # In memory if there is such a folder: the tests write some ten thousand times, without waiting for a disk.
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        made = Both(Path(folder) / "pins.sqlite")
        yield made
        made.kept.clear()
        made.store.close()
        made.other.close()


CALLS: dict[str, Callable[[PinStore], object]] = {
    "known_host": lambda store: store.known_host("bank.test"),
    "hosts": lambda store: store.hosts(),
    "note": lambda store: store.note("new.test", HEADER, [LEAF]),
    "unpin": lambda store: store.note("bank.test", "max-age=0", [LEAF]),
    "pin": lambda store: store.pin("new.test", [LEAF]),
    "forget": lambda store: store.forget("bank.test"),
    "rest": lambda store: store.rest(),
}


@pytest.mark.parametrize("call", list(CALLS))
@pytest.mark.parametrize("opened", [False, True], ids=["closed", "open"])
def test_an_exception_at_each_fourth_instruction_in_turn(both: Both, call: str, opened: bool) -> None:
    """A statement is several instructions; `make stress` stops at each."""
    interrupt(both, call, opened, every=4)


def interrupt(both: Both, call: str, opened: bool, every: int) -> None:
    """Call it again and again, with an exception some instructions later each time, until it comes to its end."""
    both.other.pin("bank.test", [LEAF])
    number = stops = 0
    while True:
        number, stops = number + every, stops + 1
        if both.other.entry("bank.test") is None:
            both.other.pin("bank.test", [LEAF])
        if both.other.entry("new.test") is not None:
            both.other.forget("new.test")
        if opened:
            both.store.known_host("bank.test")
        else:
            both.store.rest()
        stop = stopped(lambda: CALLS[call](both.store), number)
        if stop is None:
            break
        both.kept = [stop]
        both.store.database.write(lambda _: None)  # after any write in progress
        # Whatever happened to the call: both see the same, and a pin that the other one sets is enforced.
        assert states(both.store) == states(both.other), number
        if stops % 25 == 0:
            both.is_sound()
    assert number > 50
    both.kept.clear()
    both.is_sound()
    # A connection orphaned by an exception is in a cycle with its statements (CPython), so the collector frees it.
    del stop
    gc.collect()
    both.store.rest()
    both.other.rest()
    assert files_left_open(both.store.path) == []


def states(store: PinStore) -> list[object]:
    return [(known.host, known.pins) for known in store.hosts()] + [
        store.validate(name, [OTHER]).ok for name in ("bank.test", "new.test")
    ]


def test_a_noting_that_was_interrupted_is_enforced_in_this_process_too(both: Both) -> None:
    outcomes: set[bool] = set()
    for number in range(1, 100_000, 4):
        stop = stopped(lambda: both.store.note("new.test", HEADER, [LEAF]), number)
        if stop is None:
            break
        both.store.database.rest()  # waits for a write in progress
        written = both.other.known_host("new.test") is not None
        outcomes.add(written)
        assert (both.store.known_host("new.test") is not None) == written
        assert both.store.validate("new.test", [OTHER]).ok is not written
        both.other.forget("new.test")
    assert outcomes == {True, False}


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs an interval timer")
def test_a_signal_that_raises_every_few_hundred_microseconds(both: Both) -> None:
    armed = False

    def stop(number: int, frame: FrameType | None) -> None:
        if armed:
            raise Stop

    before = signal.signal(signal.SIGALRM, stop)
    acknowledged = stopped_calls = 0
    try:
        for turn in range(1_500):
            try:
                armed = True
                signal.setitimer(signal.ITIMER_REAL, 0.0001 + turn % 40 * 0.00005)
                both.store.note(f"h{turn}.test", HEADER, [LEAF])
                armed = False
                acknowledged += 1
            except Stop as error:
                armed = False
                stopped_calls += 1
                both.kept = [error]
            signal.setitimer(signal.ITIMER_REAL, 0)
            if turn % 50 == 0:
                both.is_sound()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    both.is_sound()
    assert states(both.store) == states(both.other)
    assert acknowledged <= len(both.other) <= acknowledged + stopped_calls
    assert stopped_calls


def test_a_select_that_was_left_holds_no_old_snapshot(both: Both) -> None:
    both.store.merge(KNOWN)

    class Kept(Exception):
        pass

    walk = both.store.each()
    next(walk)  # a generator in the middle, kept alive as in a REPL
    both.other.pin("bank.test", [LEAF])
    assert not both.store.validate("bank.test", [OTHER]).ok
    assert sum(1 for _ in walk) == len(KNOWN) - 1


def _known() -> list[Any]:
    from dynpin import KnownPinnedHost

    return [KnownPinnedHost(f"z{n:05}.test", (LEAF,), False, None, NOW, NOW + 1000) for n in range(3_000)]


KNOWN = _known()


def test_a_signal_handler_may_fork_or_close_in_the_middle_of_a_look_up(both: Both) -> None:
    """The connection in use is left alone: closing it while a thread uses it would crash SQLite."""
    acts: list[int] = []

    def act(number: int, frame: FrameType | None) -> None:
        acts.append(len(acts))
        both.store.rest()
        if len(acts) % 10 == 0 and (child := os.fork()) == 0:
            os._exit(0)
        elif len(acts) % 10 == 0:
            os.waitpid(child, 0)

    both.other.pin("bank.test", [LEAF])
    before = signal.signal(signal.SIGALRM, act)
    try:
        for turn in range(300):
            signal.setitimer(signal.ITIMER_REAL, 0.0001 + turn % 20 * 0.00005)
            for _ in range(20):
                assert both.store.known_host("bank.test") is not None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert acts
    both.is_sound()


def test_the_collector_may_close_the_users_store_in_the_middle_of_anything(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DYNPIN_STORE", str(both.store.path))

    class Client:
        pass

    for turn in range(300):
        client = Client()
        client.lease = Lease(None, client)  # type: ignore[attr-defined] # a circle, as clients are
        store = client.lease.store  # type: ignore[attr-defined]
        del client
        gc.collect(turn % 3)
        store.pin(f"h{turn}.test", [LEAF])
        assert store.known_host(f"h{turn}.test") is not None
    assert len(both.other) == 300


def test_a_signal_handler_may_use_the_store_itself(both: Both) -> None:
    seen: list[object] = []

    def look(number: int, frame: FrameType | None) -> None:
        seen.append(both.store.known_host("bank.test"))
        both.store.pin(f"h{len(seen)}.test", [LEAF])

    both.other.pin("bank.test", [LEAF])
    before = signal.signal(signal.SIGALRM, look)
    try:
        for turn in range(200):
            signal.setitimer(signal.ITIMER_REAL, 0.0001 + turn % 20 * 0.0001)
            both.store.known_host("bank.test")
            both.store.pin("main.test", [LEAF])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert seen
    assert None not in seen
    assert len(both.other) == 2 + len(seen)


def test_a_lock_of_another_process_is_reported_and_costs_no_pin(both: Both) -> None:
    with contextlib.closing(sqlite3.connect(both.store.path, isolation_level=None)) as third:
        third.execute("BEGIN IMMEDIATE")
        with pytest.raises(OSError, match="another process was writing for longer than a second") as caught:
            both.store.pin("bank.test", [LEAF])
        assert "--repair" not in str(caught.value)
        assert "move" not in str(caught.value)
        assert both.store.known_host("bank.test") is None  # reading still works
        third.execute("ROLLBACK")
    both.store.pin("bank.test", [LEAF])
    both.is_sound()


def test_many_threads_read_and_write_one_store(both: Both) -> None:
    start = threading.Barrier(6)
    wrong: list[object] = []

    def work(number: int) -> None:
        start.wait()
        for turn in range(30):
            host = f"h{turn}.t{number}.test"
            both.store.pin(host, [LEAF])
            if both.store.validate(host, [OTHER]).ok:
                wrong.append(host)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(both.other) == 180
