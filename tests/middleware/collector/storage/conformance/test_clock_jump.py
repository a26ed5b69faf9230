"""A clock that jumps ahead deletes nothing by its age at once; the clock is right, set, accepted, or stands."""

from __future__ import annotations

import pytest

from dynpin.middleware.collector import Retention
from dynpin.middleware.collector.storage import Filter
from dynpin.middleware.collector.storage.sql import SQLStorage
from dynpin.middleware.collector.worker import clock_jump, prune
from tests.clock import Clock
from tests.middleware.collector.conftest import NOW

from ..conftest import arrival
from .conftest import DAY

PAUSE = DAY / 2
KEPT = Retention(days=5)


def hosts(storage: SQLStorage) -> list[str]:
    return [group.host for group in storage.groups(Filter()).entries]


def work(storage: SQLStorage, clock: Clock, days: float = 0.0) -> None:
    """What the worker does in so many days, with pauses."""
    until = clock() + days * DAY
    while True:
        prune(storage, KEPT, clock())
        if clock() >= until:
            return
        clock.forward(PAUSE)


def actions(storage: SQLStorage) -> list[str]:
    return [entry.action for entry in storage.audit()]


@pytest.fixture
def used(storage: SQLStorage, clock: Clock) -> SQLStorage:
    """A storage with a report, after a day of work."""
    storage.add([arrival("old.test")], {})
    work(storage, clock, 1)
    return storage


def test_a_year_ahead_deletes_nothing_until_the_clock_has_stood(used: SQLStorage, clock: Clock) -> None:
    clock.forward(365 * DAY)
    work(used, clock, 2.5)
    jump = clock_jump(used)
    assert jump is not None
    assert (jump.before, jump.after) == (NOW + DAY, NOW + 366 * DAY)
    assert "365 days ahead" in str(jump)
    assert hosts(used) == ["old.test"]
    work(used, clock, 1)
    assert (hosts(used), clock_jump(used)) == ([], None)
    assert actions(used) == ["clock-stands", "clock-jumped"]


def test_the_size_is_limited_all_the_time(used: SQLStorage, clock: Clock) -> None:
    clock.forward(365 * DAY)
    pruned, jump = prune(used, Retention(days=5, bytes=1), clock())
    assert jump is not None
    assert (pruned.reports, hosts(used)) == (1, [])


def test_a_person_accepts_the_clock(used: SQLStorage, clock: Clock) -> None:
    clock.forward(365 * DAY)
    work(used, clock)
    prune(used, KEPT, clock(), accept_clock=True)
    assert (hosts(used), clock_jump(used)) == ([], None)


def test_a_clock_that_is_set_right_again_was_never_believed(used: SQLStorage, clock: Clock) -> None:
    clock.forward(365 * DAY)
    work(used, clock, 1)
    clock.forward(-365 * DAY)
    work(used, clock)
    assert (hosts(used), clock_jump(used)) == (["old.test"], None)
    work(used, clock, 4)
    assert hosts(used) == [], "it is five days old"


def test_a_clock_that_jumps_again_has_not_stood(used: SQLStorage, clock: Clock) -> None:
    for _ in range(3):
        clock.forward(8 * DAY)
        work(used, clock, 1)
    assert hosts(used) == ["old.test"]
    work(used, clock, 3)
    assert hosts(used) == []


def test_a_pause_of_less_than_a_week_is_no_jump(used: SQLStorage, clock: Clock) -> None:
    clock.forward(6.9 * DAY)
    work(used, clock)
    assert (hosts(used), actions(used)) == ([], [])


def test_a_storage_without_a_first_deletion_knows_its_newest_report(storage: SQLStorage, clock: Clock) -> None:
    storage.add([arrival("old.test")], {})
    clock.forward(365 * DAY)
    work(storage, clock)
    assert hosts(storage) == ["old.test"]


def test_two_workers_that_disagree_by_a_year_delete_by_the_earlier_clock(used: SQLStorage, clock: Clock) -> None:
    used.add([arrival("new.test", NOW + DAY)], {})
    for _ in range(10):
        clock.forward(365 * DAY)
        work(used, clock)
        clock.forward(-365 * DAY)
        work(used, clock)
        clock.forward(PAUSE)
    assert hosts(used) == ["new.test"]
