"""Private stores, partitions, and a clock that jumps."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dynpin import Pin, StoreError
from dynpin.clientstore import PinStore
from dynpin.clientstore.store import check

from ..clock import BASE, Clock

LEAF, BACKUP, OTHER = (Pin(bytes([number]) * 32) for number in (1, 2, 5))
DAY = 86_400.0
HEADER = f'pin-sha256="{LEAF}"; pin-sha256="{BACKUP}"; max-age=2000000'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "pins.sqlite"


@pytest.fixture
def store(file: Path, clock: Clock) -> Iterator[PinStore]:
    with PinStore(file, clock=clock) as store:
        yield store


# -- worlds -----------------------------------------------------------------------------------------------------------


def test_a_private_store_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with PinStore.private() as store:
        assert store.note("a.test", HEADER, [LEAF]).outcome == "noted"
        assert not store.validate("a.test", [OTHER]).ok
        with PinStore.private() as another:
            assert another.known_host("a.test") is None
    assert list(tmp_path.iterdir()) == []


def test_a_private_store_that_is_closed_refuses() -> None:
    store = PinStore.private()
    store.pin("a.test", [LEAF])
    store.close()
    for use in (store.hosts, lambda: store.known_host("a.test"), lambda: store.pin("b.test", [LEAF])):
        with pytest.raises(StoreError, match="closed; open a new PinStore"):
            use()


def test_a_private_store_rests_when_what_it_is_to_write_is_written() -> None:
    done: list[str] = []
    began, go_on = threading.Event(), threading.Event()

    private = PinStore.private()

    def write(_: sqlite3.Connection) -> None:
        began.set()
        go_on.wait()
        done.append("written")

    def rest() -> None:
        private.rest()
        done.append("rested")

    with private:
        private.database.write_later(write)
        assert began.wait(60)
        resting = threading.Thread(target=rest)
        resting.start()
        resting.join(0.1)  # long enough for a store that does not wait to be seen
        go_on.set()
        resting.join()
    assert done == ["written", "rested"]


def test_pins_of_one_partition_are_unknown_in_another(file: Path, clock: Clock) -> None:
    names = ("https://one.example", "https://two.example", "../../etc/passwd", "", "x" * 1000)
    stores = [PinStore(file, clock=clock, partition=name) for name in names]
    plain = PinStore(file, clock=clock)
    stores[0].note("tracker.test", HEADER, [LEAF])
    assert [store.known_host("tracker.test") is not None for store in (*stores, plain)] == [True] + [False] * 5
    assert {path.parent for path in file.parent.rglob("*")} == {file.parent}  # no name leads out of the folder
    for store in (*stores, plain):
        store.close()
    with PinStore(file, clock=clock, partition=names[0]) as again:
        assert again.known_host("tracker.test") is not None
        assert not again.is_default


# -- the clock --------------------------------------------------------------------------------------------------------


def test_a_clock_pushed_past_every_expiry_warns_and_pins_hold_again_when_it_is_right(
    store: PinStore, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    store.note("a.test", HEADER, [LEAF])
    clock.now += 61 * DAY
    assert store.validate("a.test", [OTHER]).ok  # §2.3.3: expiry wins
    assert "61 days after the last time seen" in caplog.text
    assert "pins of 1 host have expired" in caplog.text
    assert [entry.host for entry in store.hosts(include_expired=True)] == ["a.test"]
    caplog.clear()
    assert store.validate("a.test", [OTHER]).ok
    assert caplog.text == ""  # warned only once
    clock.now = BASE
    assert not store.validate("a.test", [OTHER]).ok


def test_a_clock_that_is_set_back_warns(store: PinStore, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    store.note("a.test", HEADER, [LEAF])
    clock.now -= 3 * DAY
    assert not store.validate("a.test", [OTHER]).ok
    assert "3 days before the last time seen" in caplog.text


def test_time_that_passes_normally_is_no_jump(file: Path, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    with PinStore(file, clock=clock) as store:
        store.note("a.test", HEADER, [LEAF])
        for _ in range(100):
            clock.now += DAY
            store.validate("a.test", [OTHER])
        clock.now += 40 * DAY  # nobody used it for a long time, and no pin expired in between
        store.validate("a.test", [OTHER])
    assert caplog.text == ""


def test_a_jump_is_noticed_by_the_next_process(file: Path, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    with PinStore(file, clock=clock) as store:
        store.note("a.test", HEADER, [LEAF])
    clock.now += 61 * DAY
    assert any("61 days after" in fault for fault in check(file, clock.now))
    with PinStore(file, clock=clock) as store:
        assert "61 days after" in caplog.text
        assert store.known_host("a.test") is None


def test_a_jump_may_refuse_everything_until_a_person_decides(file: Path, clock: Clock) -> None:
    store = PinStore(file, clock=clock, on_clock_jump="refuse")
    store.note("a.test", HEADER, [LEAF])
    clock.now += 61 * DAY
    for host in ("a.test", "b.test"):
        with pytest.raises(StoreError, match="--accept-clock"):
            store.validate(host, [OTHER])
    clock.now = BASE + DAY
    assert not store.validate("a.test", [OTHER]).ok  # it was the clock
    clock.now = BASE + 61 * DAY
    with pytest.raises(StoreError, match="--accept-clock"):
        store.known_host("a.test")
    store.accept_clock()
    assert store.known_host("a.test") is None
    store.close()
    PinStore(file, clock=clock, on_clock_jump="refuse").close()


def test_a_person_may_decide_in_another_process(file: Path, clock: Clock) -> None:
    with PinStore(file, clock=clock, on_clock_jump="refuse") as store:
        store.note("a.test", HEADER, [LEAF])
        clock.now += 61 * DAY
        with pytest.raises(StoreError, match="--accept-clock"):
            store.known_host("a.test")
        with PinStore(file, clock=clock) as other:
            other.accept_clock()
        assert store.known_host("a.test") is None


def test_a_look_up_is_a_use_that_the_next_process_counts_from(file: Path, clock: Clock) -> None:
    with PinStore(file, clock=clock) as store:
        store.note("a.test", HEADER, [LEAF])
        clock.now += 25 * DAY
        store.validate("a.test", [LEAF])
    clock.now += 20 * DAY  # the pins have expired, and the last use is 20 days ago: no jump
    PinStore(file, clock=clock, on_clock_jump="refuse").close()


def test_other_processes_do_not_take_the_decision_by_looking(file: Path, clock: Clock) -> None:
    with PinStore(file, clock=clock) as store:
        store.note("a.test", HEADER, [LEAF])
    clock.now += 61 * DAY
    with PinStore(file, clock=clock) as looking:
        looking.hosts()
        looking.validate("a.test", [LEAF])
    with pytest.raises(StoreError, match="--accept-clock"):
        PinStore(file, clock=clock, on_clock_jump="refuse")
