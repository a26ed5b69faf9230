"""The simulator compared with the real client, visit by visit, and its limits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynpin.lab.simulation.calendar import (
    Attack,
    CAChange,
    Compromise,
    Event,
    Loss,
    Mistake,
    Rotation,
    Unpin,
)
from dynpin.lab.simulation.engine import play
from dynpin.lab.simulation.population import PRESETS
from dynpin.lab.simulation.site_policy import SitePolicy
from dynpin.lab.simulation.study_table import DAY
from dynpin.lab.simulation.visits import Visits
from dynpin.lab.simulation.world import NO_ENTRY, World, build
from tests.lab.clients_in_turn import ByTheLetter, RecorderLedger, Told, WithStore, horizon, in_turn

CAP = 60 * DAY
KINDS: dict[str, tuple[type[ByTheLetter] | type[WithStore], float]] = {
    "by the letter": (ByTheLetter, 0.0),
    "with the store": (WithStore, 0.01),
}

# Every kind of event, with all the variants of the site, the attacker and the operator.
CALENDARS: dict[str, tuple[Event, ...]] = {
    "all keys lost": (Loss(80 * DAY),),
    "keys lost and found": (Loss(50 * DAY, fixed_after=2 * DAY), Loss(90 * DAY, keys=1), Loss(110 * DAY, keys=2)),
    "rotations": (
        Rotation(30 * DAY),
        Rotation(60 * DAY, "new", announced=9 * DAY),
        Rotation(90 * DAY),
        Rotation(120 * DAY, "new"),
    ),
    "another CA": (CAChange(40 * DAY), CAChange(100 * DAY, "new")),
    "attacks": (Attack(40 * DAY, 60 * DAY, 0.6), Attack(50 * DAY, 90 * DAY, 0.5, "pinned-ca"), Loss(70 * DAY, keys=1)),
    "stolen": (
        Compromise(40 * DAY, noticed=5 * DAY),
        Attack(41 * DAY, 70 * DAY, 0.7, "stolen-key"),
        Compromise(100 * DAY, keys=3),
        Attack(100 * DAY, 140 * DAY, 0.3, "stolen-key"),
    ),
    "hostile pins": (
        Attack(40 * DAY, 44 * DAY, 1.0, "server", 50 * DAY),
        Loss(44 * DAY, keys=1),
        Attack(90 * DAY, 120 * DAY, 0.5, "other-ca", 3 * DAY),
    ),
    "mistakes": (
        Mistake(30 * DAY, "key", 6 * 3600),
        Mistake(60 * DAY, "max-age", 2 * DAY),
        Mistake(80 * DAY, "no-header", 30 * DAY),
        Rotation(82 * DAY, "new"),
    ),
    "unpinned": (Attack(20 * DAY, 90 * DAY, 0.5), Unpin(70 * DAY), Rotation(100 * DAY, "new")),
}
POLICIES = {
    "key": SitePolicy("key", 30 * DAY, 1),
    "ca": SitePolicy("ca", 10 * DAY, 2, "ca"),
    "both": SitePolicy("both", 90 * DAY, 1, "both"),
    "none": SitePolicy("none", DAY, pinned="none"),
    "no backup": SitePolicy("no backup", 30 * DAY, 0),
    "ramp": SitePolicy("ramp", 45 * DAY, 2, ramp=((300, 7 * DAY), (DAY, 14 * DAY), (20 * DAY, 30 * DAY))),
}


def played(
    world: World, visits: list[list[int]], targets: np.ndarray[tuple[int, int], np.dtype[np.bool_]], least_step: float
) -> tuple[Told, list[int]]:
    samples = list(range(0, horizon(world) + 1, 12 * 3600))
    ledger = RecorderLedger(samples)
    stores = play(world, Visits.of(visits, horizon(world)), targets, ledger, least_step=least_step)
    told = ledger.told
    for client, (row, expires_at) in enumerate(zip(stores.entry.tolist(), stores.expires_at.tolist(), strict=True)):
        if row != NO_ENTRY and expires_at >= horizon(world):
            told.stores[client] = (world.entries[row], expires_at)
    return told, samples


def agree(
    world: World, visits: list[list[int]], targets: np.ndarray[tuple[int, int], np.dtype[np.bool_]], kind: str
) -> Told:
    make, least_step = KINDS[kind]
    told, samples = played(world, visits, targets, least_step)
    clients = [make(f"client-{number}.test", CAP) for number in range(len(visits))]
    expected = in_turn(world, clients, visits, targets, samples)
    for client in clients:
        if isinstance(client, WithStore):
            client.store.close()
    assert told.refusals == expected.refusals
    assert told.fooled == expected.fooled
    assert told.locked == {each for each in expected.locked if each[1] < horizon(world)}
    assert told.stores == expected.stores
    return told


def drawn(clients: int, days: int, seed: int) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    visits = PRESETS["website"].draw(rng, clients, days * DAY)
    everyone = np.arange(clients)
    return [
        visits.second(np.repeat(everyone[client], end - start), np.arange(start, end)).tolist()
        for client, (start, end) in enumerate(zip(visits.starts[:-1], visits.starts[1:], strict=True))
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("policy", POLICIES)
def test_every_visit_has_the_outcome_of_the_real_client(policy: str, kind: str) -> None:
    visits = drawn(7, 150, seed=5)
    refusals = fooled = 0
    for number, events in enumerate(CALENDARS.values()):
        world = build(POLICIES[policy], events, 150 * DAY, CAP)
        targets = np.random.default_rng(number).random((len(world.attacks), len(visits)))
        told = agree(world, visits, targets < np.array([[attack.share] for attack in world.attacks] or 0), kind)
        refusals, fooled = refusals + len(told.refusals), fooled + len(told.fooled)
    assert fooled
    assert refusals or policy in ("none", "no backup")


# Cases that depend on one second: an expiry, and the smallest step by which the store moves one.
HOUR = 3600
ON_THE_SECOND: dict[str, tuple[int, Event, list[int]]] = {
    "a visit at the last second of its pins": (2 * DAY, Rotation(DAY, "new"), [0, 2 * DAY, 2 * DAY + 1, 3 * DAY]),
    "an expiry that moves by the least step": (25 * DAY, Loss(9 * DAY), [0, 6 * HOUR, 12 * HOUR + 1, 18 * HOUR + 1]),
    "and by a second more": (25 * DAY, Loss(9 * DAY), [0, 6 * HOUR + 1, 12 * HOUR + 2, 18 * HOUR + 2]),
    "a step over the edge of an epoch": (25 * DAY, Mistake(HOUR, "no-header", HOUR), [0, 6 * HOUR, 6 * HOUR + 1]),
    "hostile pins at their last second": (DAY, Attack(0, 9 * DAY, 1.0, "other-ca", DAY), [0, 3 * DAY, 4 * DAY]),
    "hostile pins after their last": (DAY, Attack(0, 9 * DAY, 1.0, "other-ca", DAY - 1), [0, 3 * DAY]),
    "hostile pins that are noted again": (DAY, Attack(0, 9 * DAY, 1.0, "other-ca", 25 * DAY), [0, 6 * HOUR, 12 * HOUR]),
    "two visits in one second": (DAY, Attack(0, DAY, 1.0, "other-ca", DAY), [0, 0, DAY, DAY]),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", ON_THE_SECOND)
def test_on_the_second(case: str, kind: str) -> None:
    max_age, event, visits = ON_THE_SECOND[case]
    world = build(SitePolicy("policy", max_age), [event], 10 * DAY, CAP)
    agree(world, [visits], np.ones((len(world.attacks), 1), np.bool_), kind)


def seconds(least: int = 0) -> st.SearchStrategy[int]:
    # Few different numbers, so that visits, expiries and events are often in the same second.
    return st.integers(least, 40).map(lambda quarter: quarter * DAY // 4)


EVENTS = st.one_of(
    st.builds(Rotation, seconds(), st.sampled_from(["backup", "new"]), seconds()),
    st.builds(Loss, seconds(), st.sampled_from([1, 2, 1000]), seconds()),
    st.builds(Compromise, seconds(), st.sampled_from([1, 2]), seconds()),
    st.builds(CAChange, seconds(), st.sampled_from(["backup", "new"])),
    st.builds(Mistake, seconds(), st.sampled_from(["key", "max-age", "no-header"]), seconds(1)),
    st.builds(Unpin, seconds()),
    st.builds(
        lambda first, lasts, shows, pins_for: Attack(first, first + lasts, 0.5, shows, pins_for),
        seconds(),
        seconds(1),
        st.sampled_from(["other-ca", "pinned-ca", "stolen-key", "server"]),
        seconds(),
    ),
)
SITE_POLICIES = st.builds(
    SitePolicy,
    st.just("any"),
    seconds(1),
    st.integers(0, 2),
    st.sampled_from(["key", "ca", "both"]),
    st.lists(st.tuples(seconds(1), seconds(1)), max_size=2).map(tuple),
)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=50)
@given(
    policy=SITE_POLICIES,
    events=st.lists(EVENTS, max_size=5),
    visits=st.lists(
        st.lists(st.integers(0, 39).map(lambda quarter: quarter * DAY // 4), max_size=12).map(sorted),
        min_size=1,
        max_size=4,
    ),
    data=st.data(),
)
def test_whatever_happens_the_real_client_does_the_same(
    kind: str, policy: SitePolicy, events: list[Event], visits: list[list[int]], data: st.DataObject
) -> None:
    world = build(policy, events, 10 * DAY, CAP)
    rows = st.lists(st.booleans(), min_size=len(visits), max_size=len(visits))
    targets = data.draw(st.lists(rows, min_size=len(world.attacks), max_size=len(world.attacks)))
    agree(world, visits, np.array(targets, np.bool_).reshape(len(world.attacks), len(visits)), kind)
