"""The simulator as a whole: compared with theory, in chunks, in processes, and with traces."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dynpin.errors import InvalidStudy
from dynpin.lab.simulation import Group, Outcome, Population, SitePolicy, Study, Traces, simulate
from dynpin.lab.simulation.calendar import Attack, Compromise, Event, Loss, Rotation
from dynpin.lab.simulation.population import PRESETS
from dynpin.lab.simulation.run import chunks
from dynpin.lab.simulation.study_table import DAY
from dynpin.lab.simulation.traces import read_traces
from tests.lab import closed_forms

Floats = NDArray[np.float64]

# Visits are at whole seconds, and a sample includes those of its own second.
SECOND = 1 / DAY

CLIENTS, MAX_AGE, WHEN = 40_000, 30, 70
# Each client counts or not, independently of the others, so the error of a share is binomial. Every hour is compared,
# and neighbouring hours count nearly the same clients. One independent point in 150,000 exceeds 4.5 standard errors by
# chance. The seed is fixed, so the test always has the same result.
BOUND = 4.5
RATES = (1.0, 1 / 7, 1 / 30)
MIXTURE = Population(tuple(Group(f"{rate:.2f}", share, rate) for share, rate in zip((2, 5, 3), RATES, strict=True)))


def study(*events: Event, policy: SitePolicy | None = None) -> Study:
    policies = (policy or SitePolicy("policy", MAX_AGE * DAY, 1),)
    return Study(MIXTURE, policies, events, CLIENTS, 130, seed=3)


def agrees(counted: Floats, expected: Floats) -> None:
    """The values agree within the bound everywhere, and exactly if theory says none or all."""
    error = closed_forms.sampling_error(expected, CLIENTS)
    assert counted.size > 100
    assert np.all(np.abs(counted - expected) <= BOUND * error + 1e-12)
    # A bound that holds because nothing happens would prove nothing.
    assert expected.max() > 0.1


def averaged(form: Callable[..., Floats], *arguments: float | Floats) -> Floats:
    shares = [share * form(rate, *arguments) for share, rate in zip(MIXTURE.shares, RATES, strict=True)]
    mean: Floats = np.sum(shares, axis=0, dtype=np.float64)
    return mean


def test_lock_out_after_the_loss_of_all_keys() -> None:
    (outcome,) = simulate(study(Loss(WHEN * DAY)))
    after = outcome.days >= WHEN
    expected = averaged(closed_forms.locked_out_after_loss, MAX_AGE, WHEN, outcome.days[after] - WHEN)
    agrees(outcome.locked_out[after], expected)
    assert not outcome.locked_out[~after].any()
    # The client-days are the area under the curve: hourly steps are fine enough.
    area = float(expected.sum()) / 24 * CLIENTS
    assert outcome.locked_out_days == pytest.approx(area, rel=0.01)


def test_lock_out_when_the_site_has_pinned_for_less_than_max_age() -> None:
    (outcome,) = simulate(study(Loss(12 * DAY)))
    after = outcome.days >= 12
    expected = averaged(closed_forms.locked_out_after_loss, MAX_AGE, 12, outcome.days[after] - 12)
    agrees(outcome.locked_out[after], expected)


@pytest.mark.parametrize("announced", [0, 5, 20])
def test_lock_out_after_a_rotation_to_a_key_that_was_announced(announced: int) -> None:
    (outcome,) = simulate(study(Rotation(WHEN * DAY, "new", announced * DAY)))
    after = outcome.days >= WHEN
    expected = averaged(closed_forms.locked_out_after_rotation, MAX_AGE, WHEN, announced, outcome.days[after] - WHEN)
    error = closed_forms.sampling_error(expected, CLIENTS)
    assert np.all(np.abs(outcome.locked_out[after] - expected) <= BOUND * error + 1e-12)
    assert expected.max() > 0.01


def test_an_announcement_of_max_age_locks_nobody_out() -> None:
    (outcome,) = simulate(study(Rotation(WHEN * DAY, "new", MAX_AGE * DAY)))
    assert outcome.tally.ever_locked_out == 0


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_clients_that_an_attack_fools(share: float) -> None:
    until = 115
    (outcome,) = simulate(study(Attack(WHEN * DAY, until * DAY, share)))
    during = (outcome.days >= WHEN) & (outcome.days < until)
    expected = share * averaged(closed_forms.fooled, MAX_AGE, outcome.days[during] - WHEN + SECOND)
    agrees(outcome.fooled[during], expected)
    assert not outcome.fooled[~during].any()


def test_clients_that_hold_pins() -> None:
    ramp = tuple((MAX_AGE * DAY + step % 2, 5 * DAY) for step in range(20))
    (outcome,) = simulate(study(policy=SitePolicy("policy", MAX_AGE * DAY, 1, ramp=ramp)))
    days = np.array(sorted(outcome.tally.pinned)) / DAY
    counted = np.array([count for _, count in sorted(outcome.tally.pinned.items())]) / CLIENTS
    expected = averaged(closed_forms.pinned, MAX_AGE, days)
    assert days.size == 21
    error = closed_forms.sampling_error(expected, CLIENTS)
    assert np.all(np.abs(counted - expected) <= BOUND * error + 1e-12)


def test_without_pins_an_attack_fools_every_visitor() -> None:
    (outcome,) = simulate(study(Attack(WHEN * DAY, 100 * DAY), policy=SitePolicy("none", DAY, pinned="none")))
    during = (outcome.days >= WHEN) & (outcome.days < 100)
    x = outcome.days[during] - WHEN + SECOND
    agrees(outcome.fooled[during], averaged(lambda rate, x: 1 - np.exp(-rate * x), x))


def test_the_formula_of_the_specification() -> None:
    """1 - exp(-r (M - n)), n days after the loss, with one rate and the keys long pinned."""
    n = np.array([0.0, 10.0, 29.0, 31.0])
    expected = [1 - math.exp(-0.2 * 30), 1 - math.exp(-0.2 * 20), 1 - math.exp(-0.2), 0.0]
    assert closed_forms.locked_out_after_loss(0.2, 30, 365, n) == pytest.approx(expected)


# -- chunks and processes --------------------------------------------------------------------------------------------


def sums(outcomes: tuple[Outcome, ...]) -> list[dict[str, object]]:
    """All sums, as plain values, which can be compared as a whole on every Python."""
    return [
        {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in vars(each.tally).items()}
        for each in outcomes
    ]


@pytest.fixture(scope="module")
def large() -> Study:
    policies = (SitePolicy("long", 60 * DAY, 1), SitePolicy("short", 2 * DAY, 2))
    events = (Attack(20 * DAY, 40 * DAY, 0.3), Compromise(50 * DAY), Loss(80 * DAY))
    return Study(PRESETS["website"], policies, events, 150_000, 100, seed=9)


def test_the_numbers_are_the_same_whatever_the_processes(large: Study) -> None:
    assert len(chunks(large)) > 4
    reported: list[int] = []
    alone = simulate(large, processes=1)
    assert sums(simulate(large, processes=2, progress=reported.append)) == sums(alone)
    assert sum(reported) == large.clients == alone[0].tally.clients
    assert sums(simulate(replace(large, seed=10), processes=1)) != sums(alone)


@pytest.mark.parametrize("name", PRESETS)
def test_chunks_bound_the_visits_in_memory(name: str) -> None:
    busy = Study(PRESETS[name], (), clients=10_000_000, days=730)
    sizes = chunks(busy)
    assert sum(sizes) == 10_000_000
    assert max(sizes) * (busy.population.per_day * 730 + 1) <= 2**19 + 730 * 24


# -- populations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_a_population_visits_as_often_as_it_says(name: str) -> None:
    population = PRESETS[name]
    visits = population.draw(np.random.default_rng(4), 3000, 60 * DAY)
    assert visits.keys.size / 3000 / 60 == pytest.approx(population.per_day, rel=0.1)
    assert np.all(np.diff(visits.keys) >= 0)
    assert len(visits) == 3000
    owner = visits.keys // visits.stride
    assert np.array_equal(np.bincount(owner, minlength=3000), np.diff(visits.starts))
    assert int((visits.keys % visits.stride).max()) < 60 * DAY


def test_regular_clients_visit_at_their_period() -> None:
    visits = Population((Group("nightly", 1, 1.0, "regular"),)).draw(np.random.default_rng(1), 100, 50 * DAY)
    gaps = np.diff(visits.keys % visits.stride)
    inside = gaps[np.diff(visits.keys // visits.stride) == 0]
    assert 0.8 * DAY - 1 <= inside.min() < DAY < inside.max() <= 1.2 * DAY + 1


def test_traces_are_repeated_from_a_random_moment() -> None:
    traces = Traces("seen", 1, 10 * DAY, ((0, 2 * DAY, 3 * DAY), (5 * DAY,)))
    visits = Population((traces,)).draw(np.random.default_rng(1), 400, 100 * DAY)
    assert visits.keys.size / 400 / 100 == pytest.approx(traces.per_day, rel=0.1)
    gaps = np.diff(visits.keys % visits.stride)[np.diff(visits.keys // visits.stride) == 0]
    assert set(gaps.tolist()) == {DAY, 2 * DAY, 7 * DAY, 10 * DAY}


def test_traces_are_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "visits.csv"
    # Seconds since 1970, in the order of a log; requests of one client within a minute are one visit.
    lines = ["a,1700000100", "b,1700000000.9", "a,1700000060", "a,1700000119", "a,1700000120", "a,1700006000"]
    file.write_text("\ufeffclient,second\n" + "\n".join(lines))
    assert read_traces(file) == (6001, ((60, 120, 6000), (0,)))
    assert read_traces(file, DAY) == (DAY, ((60, 120, 6000), (0,)))


BAD_TRACES = {
    "no columns": ("a,b\n1,2\n", "needs the columns"),
    "no visit": ("client,second\n", "has no visit"),
    "no number": ("client,second\na,1\nb,noon\n", ":3: 'noon' is not a number"),
    "too long": ("client,second\na,0\na,86400\n", "more than its length"),
    "no second": ("client,second\na\n", ":2: '' is not a number"),
    "milliseconds": ("client,second\na,1700000000000\na,1702592000000\n", "is the column second in seconds"),
    "endless": ("client,second\na,inf\n", ":2: 'inf' is not a number"),
    "a field that goes on": (f"client,second\n{'a' * 200_000},5\n", ":2: this is not CSV"),
    "no text": ("client,second\n\udcff,5\n", "not UTF-8"),
}


@pytest.mark.parametrize("fault", BAD_TRACES)
def test_traces_that_cannot_be_read(fault: str, tmp_path: Path) -> None:
    text, message = BAD_TRACES[fault]
    file = tmp_path / "visits.csv"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InvalidStudy, match=message) as raised:
        read_traces(file, 3600)
    assert str(raised.value).startswith(str(file))


@pytest.mark.parametrize("length", [None, 1, 3599])
def test_traces_need_the_time_over_which_they_were_taken(length: int | None, tmp_path: Path) -> None:
    (tmp_path / "visits.csv").write_text("client,second\na,1000\n")
    with pytest.raises(InvalidStudy, match='give for how long it was taken, such as length = "30 days"'):
        read_traces(tmp_path / "visits.csv", length)


def test_clients_that_never_visit_are_counted() -> None:
    never = Study(Population((Group("never", 1, 0.0),)), (SitePolicy("p", DAY),), (Loss(DAY),), 100, 5)
    (outcome,) = simulate(never)
    assert (outcome.tally.clients, outcome.tally.visits, outcome.tally.ever_locked_out) == (100, 0, 0)
