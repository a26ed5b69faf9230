"""Signed lists in the simulator: compared with the real client's store and schedule, theory, and real sockets."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynpin.lab.simulation.calendar import Attack, Event, Loss, Rotation, Unpin
from dynpin.lab.simulation.healing import play_with_lists
from dynpin.lab.simulation.recovery import Recovery, Watch
from dynpin.lab.simulation.site_policy import SitePolicy
from dynpin.lab.simulation.study_table import DAY
from dynpin.lab.simulation.visits import Visits
from dynpin.lab.simulation.world import NO_ENTRY, World, build
from tests.lab.clients_in_turn import RecorderLedger, Told, horizon, in_turn
from tests.lab.clients_that_heal import HealingClient
from tests.lab.test_simulation_engine import CALENDARS, CAP, EVENTS, POLICIES, SITE_POLICIES, drawn

HOUR = 3_600
Targets = np.ndarray[tuple[int, int], np.dtype[np.bool_]]


def played(
    world: World,
    visits: Sequence[Sequence[int]],
    targets: Targets,
    watch: Watch,
    phases: list[int],
    samples: list[int],
) -> Told:
    ledger = RecorderLedger(samples)
    stores = play_with_lists(
        world,
        Visits.of(visits, horizon(world)),
        targets,
        ledger,
        recovery=Recovery(watch=watch),
        listed=np.ones(len(visits), np.bool_),
        phases=np.array(phases, np.int64),
        least_step=0.01,
    )
    for client, (row, expires_at) in enumerate(zip(stores.entry.tolist(), stores.expires_at.tolist(), strict=True)):
        if row != NO_ENTRY and expires_at >= horizon(world):
            ledger.told.stores[client] = (world.entries[row], expires_at)
    return ledger.told


def agree(world: World, visits: Sequence[Sequence[int]], targets: Targets, watch: Watch = "refused") -> Told:
    phases = [number * DAY // len(visits) for number in range(len(visits))]
    clients = [HealingClient(world, CAP, phase if watch == "followed" else None) for phase in phases]
    samples = list(range(0, horizon(world), 12 * HOUR))
    expected = in_turn(world, clients, visits, targets, samples)
    edges = {(number, *edge) for number, client in enumerate(clients) for edge in client.edges}
    seconds = {second for _, second, _ in edges if second < horizon(world)}
    told = played(world, visits, targets, watch, phases, sorted({*samples, *seconds}))
    for client in clients:
        client.store.close()
    assert told.refusals == expected.refusals
    assert told.fooled == expected.fooled
    assert {each for each in told.locked if each[1] % (12 * HOUR) == 0} == expected.locked
    # A list ends a lock-out, or begins one, in the same second as for the real client.
    for number, second, refuses in edges:
        assert second >= horizon(world) or ((number, second) in told.locked) == refuses
    if watch == "refused":
        assert told.stores == expected.stores
    else:  # a look renews it for as long as the list says
        assert {key: pins for key, (pins, _) in told.stores.items()} == {
            key: pins for key, (pins, _) in expected.stores.items()
        }
    return told


@pytest.fixture(autouse=True)
def to_the_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real client looks daily at a varying time; the simulator's client at its own fixed time of day."""

    def middle(low: float, high: float) -> float:
        return (low + high) / 2

    monkeypatch.setattr(random, "uniform", middle)


@pytest.mark.parametrize("watch", ["refused", "followed"])
@pytest.mark.parametrize("policy", ["key", "both", "ramp"])
def test_every_visit_has_the_outcome_of_the_real_client(policy: str, watch: Watch) -> None:
    visits = drawn(1 if watch == "followed" else 3, 150, seed=7)  # a client that follows looks at a list each day
    for number, events in enumerate(CALENDARS.values()):
        world = build(POLICIES[policy], events, 150 * DAY, CAP, signed_after=3 * DAY)
        targets = np.random.default_rng(number).random((len(world.attacks), len(visits)))
        agree(world, visits, targets < np.array([[attack.share] for attack in world.attacks] or 0), watch)


HELD = SitePolicy("key", 30 * DAY)
BROKEN_INTO = Attack(0, DAY, 1.0, "server", 2 * DAY)
OF_LONG_PINS = Attack(8 * DAY, 9 * DAY, 1.0, "other-ca", 20 * DAY)


@dataclass(frozen=True)
class Case:
    """A case that depends on a root or on a list's version: the events, the visits in days, and the refused ones."""

    events: list[Event]
    visits: list[float]
    refused: list[float]
    policy: SitePolicy = HELD
    signed_after: float = 1.0


ON_A_ROOT = {
    "a thief's root that has ended, and seven days of the owner's": Case(
        [BROKEN_INTO, Loss(11 * DAY)], [0.5, 1.5, 3, 5, 10.5, 13, 13.5], [13]
    ),
    "and a second less": Case([BROKEN_INTO, Loss(11 * DAY)], [0.5, 1.5, 3, 5, 10 - 1 / DAY, 13, 13.5], [13, 13.5]),
    "a root that outlives a short max-age": Case(
        [OF_LONG_PINS], [1, 6, 8, 10, 10.5], [10], SitePolicy("key", DAY, ramp=((30 * DAY, 5 * DAY),))
    ),
    "a root that outlives max-age=0": Case([Unpin(4 * DAY), OF_LONG_PINS], [1, 5, 8, 10, 10.5], [10]),
    # The list of day 0 has fewer pins than the header of day 4, and the client has forgotten that it saw the list.
    "a list that is older than the header": Case(
        [
            Attack(round(0.9 * DAY), round(1.1 * DAY)),
            Rotation(round(4.8 * DAY), "new", round(2.8 * DAY)),
            Attack(round(4.4 * DAY), round(4.6 * DAY)),
        ],
        [0.2, 1.0, 1.15, 2.1, 4.0, 4.5, 4.9],
        [1.0, 4.5, 4.9],
        SitePolicy("key", DAY),
        7,
    ),
    # Looks at the refusal, and 31, 92 and 213 seconds later; the second refusal does not wait for the last of these.
    "signed two minutes after the refusal": Case(
        [Loss(10 * DAY)], [9, 11 - 120 / DAY, 11 + 60 / DAY, 11 + 61 / DAY], [11 - 120 / DAY, 11 + 60 / DAY]
    ),
}


@pytest.mark.parametrize("name", ON_A_ROOT)
def test_on_a_root(name: str) -> None:
    case = ON_A_ROOT[name]
    world = build(case.policy, case.events, 20 * DAY, CAP, signed_after=round(case.signed_after * DAY))
    visits = [round(day * DAY) for day in case.visits]
    told = agree(world, [visits], np.ones((len(world.attacks), 1), np.bool_))
    assert [visits[index] for _, index, _ in sorted(told.refusals)] == [round(day * DAY) for day in case.refused]


@pytest.mark.parametrize("watch", ["refused", "followed"])
@settings(max_examples=25)
@given(
    policy=SITE_POLICIES,
    events=st.lists(EVENTS, max_size=4),
    signed_after=st.sampled_from([0, 1, HOUR, 20 * HOUR, 2 * DAY]),
    visits=st.lists(
        st.lists(
            st.tuples(st.integers(0, 39), st.sampled_from([0, 1, 29, 30, 31, 95, HOUR])).map(
                lambda at: at[0] * DAY // 4 + at[1]
            ),
            max_size=12,
        ).map(sorted),
        min_size=1,
        max_size=3,
    ),
    data=st.data(),
)
def test_whatever_happens_the_real_client_does_the_same(
    watch: Watch,
    policy: SitePolicy,
    events: list[Event],
    signed_after: int,
    visits: list[list[int]],
    data: st.DataObject,
) -> None:
    world = build(policy, events, 10 * DAY, CAP, signed_after=signed_after)
    rows = st.lists(st.booleans(), min_size=len(visits), max_size=len(visits))
    targets = data.draw(st.lists(rows, min_size=len(world.attacks), max_size=len(world.attacks)))
    agree(world, visits, np.array(targets, np.bool_).reshape(len(world.attacks), len(visits)), watch)
