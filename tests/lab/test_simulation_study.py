"""Studies in TOML: read, or refused with the table, the value and the fix."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynpin.errors import InvalidStudy
from dynpin.lab.simulation import Population, Recovery, Risks, SitePolicy, read_study, simulate
from dynpin.lab.simulation.calendar import ALL, Attack, CAChange, Compromise, Loss, Mistake, Rotation, Unpin
from dynpin.lab.simulation.study import study_of
from dynpin.lab.simulation.study_table import DAY, seconds
from dynpin.lab.simulation.traces import Traces, read_traces

HOUR = 3600

EVERYTHING = (Path(__file__).parents[1] / "vectors" / "study.toml").read_text("utf-8")


def test_a_study_with_everything_in_it(tmp_path: Path) -> None:
    (tmp_path / "visits.csv").write_text("client,second\na,5\na,99\na,77\n")
    (tmp_path / "study.toml").write_text(EVERYTHING, encoding="utf-8-sig")  # as editors on Windows do
    study = read_study(tmp_path / "study.toml", {"seed": 8})
    assert (study.days, study.clients, study.seed, study.client_cap, study.least_step) == (100, 50, 8, 45 * DAY, 0.01)
    people, programs, traces = study.population.groups
    assert (people.share, people.per_day, programs.per_day) == (3, 0.5, 24)
    assert traces == Traces("group 3", 1.0, DAY, ((0, 72),))
    ramp = ((300, DAY), (DAY, 7 * DAY))
    assert study.policies == (
        SitePolicy("key and CA, 30 days, 2 backups", 30 * DAY, 2, "both", ramp),
        SitePolicy("no pins", DAY, pinned="none"),
    )
    assert study.events == (
        *(Rotation(day * DAY, "new", 5 * DAY) for day in (10, 50, 90)),
        Loss(36 * HOUR, ALL, 6 * HOUR),
        Compromise(2 * DAY, 2),
        CAChange(3 * DAY, "new"),
        Attack(4 * DAY, 5 * DAY, 0.1, "stolen-key", 30 * DAY),
        Mistake(6 * DAY, "max-age", 5400),
        Unpin(99 * DAY),
    )
    assert study.risks == Risks(attacks=2, checked=30 * DAY)
    assert study.recovery == Recovery(0.5, 36 * HOUR, "followed")


POLICY = {"max_age": "30 days"}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no policy": ({}, "needs a policy"),
    "unknown key": ({"polices": []}, "did you mean policy"),
    "unknown population": ({"policy": [POLICY], "population": "people"}, "there are website"),
    "population of the wrong kind": ({"policy": [POLICY], "population": 3}, "population must be"),
    "nobody": ({"policy": [POLICY], "population": [{"every": "1 day", "share": 0}]}, "share is above 0"),
    "two rates": ({"policy": [POLICY], "population": [{"every": "1 day", "per_day": 1}]}, "give either every"),
    "too fast": ({"policy": [POLICY], "population": [{"every": "5 seconds"}]}, "a minute or more"),
    "no length": ({"policy": [{"max_age": 30}]}, 'such as "30 days"'),
    "bad length": ({"policy": [{"max_age": "a month"}]}, 'such as "30 days"'),
    "length of 0": ({"policy": [{"max_age": "0 days"}]}, "unpin event"),
    "unknown pin": ({"policy": [{**POLICY, "pin": "leaf"}]}, '"key" or "ca"'),
    "the same name twice": ({"policy": [POLICY, POLICY]}, "two policies are called '30 days, 1 backup'"),
    "unknown event": ({"policy": [POLICY], "event": [{"kind": "fire"}]}, '"rotation" or'),
    "key of another event": ({"policy": [POLICY], "event": [{"kind": "unpin", "day": 1, "until": 2}]}, "until is not"),
    "no day": ({"policy": [POLICY], "event": [{"kind": "unpin"}]}, "day is missing"),
    "after the end": ({"policy": [POLICY], "event": [{"kind": "unpin", "day": 365}]}, "after the 365 days"),
    "attack that ends first": (
        {"policy": [POLICY], "event": [{"kind": "attack", "from": 5, "until": 5}]},
        "a day after",
    ),
    "a key that was not stolen": (
        {"policy": [POLICY], "event": [{"kind": "attack", "from": 5, "until": 9, "shows": "stolen-key"}]},
        "needs a compromise",
    ),
    "share above 1": (
        {"policy": [POLICY], "event": [{"kind": "attack", "from": 5, "until": 9, "share": 20}]},
        "from 0 to 1",
    ),
    "a word that is not all": (
        {"policy": [POLICY], "event": [{"kind": "loss", "day": 3, "keys": "al"}]},
        'keys = "al" is not understood: give a whole number, or "all"',
    ),
    "no number": ({"policy": [POLICY], "clients": "many"}, "a whole number"),
    "not a number": ({"policy": [POLICY], "days": float("nan")}, "a number from"),
    "event that is not a table": ({"policy": [POLICY], "event": [3]}, "event 1 is 3: give a table"),
    "no such traces": ({"policy": [POLICY], "population": [{"traces": "no.csv"}]}, "population 1: .*no.csv: No such"),
    "no path": (
        {"policy": [POLICY], "population": [{"traces": "a\0"}]},
        "traces = .*without control",
    ),
    "ramp that is not a list": ({"policy": [{**POLICY, "ramp": 3}]}, r"a list such as \[\{ max_age"),
    "infinite": ({"policy": [POLICY], "population": [{"every": "1 day", "share": float("inf")}]}, "a number from 0"),
    "beyond all numbers": ({"policy": [POLICY], "risks": {"fooled_weight": 10**400}}, "a number from 0"),
    "events that are no list": ({"policy": [POLICY], "event": 3}, r"\[\[event\]\]"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_a_study_that_is_refused_says_why(fault: str, tmp_path: Path) -> None:
    values, message = REFUSED[fault]
    with pytest.raises(InvalidStudy, match=message):
        study_of(values, tmp_path)


@pytest.mark.parametrize(
    ("text", "length"), [("30 days", 30 * DAY), ("1.5 hours", 5400), ("1 week", 7 * DAY), ("90minutes", 5400)]
)
def test_lengths_of_time(text: str, length: int) -> None:
    assert seconds(text) == length


# -- any content -----------------------------------------------------------------------------------------------------

RIGHT = tomllib.loads(EVERYTHING)


KEYS = sorted({*RIGHT, *re.findall(r"\b(\w+) = ", EVERYTHING)})
NUMBERS = st.one_of(
    st.integers(-2, 400),
    st.floats(),
    st.sampled_from([0, 1, 0.5, 10**9, 2**53, 2**64, 10**400, 1e-300, 1e308, float("inf")]),
)
TEXTS = st.one_of(
    st.sampled_from(
        ["website", "build agents", "regular", "none", "ca", "both", "all", "new", "server", "stolen-key", "refused"]
    ),
    st.sampled_from(["key", "max-age", "no-header", "visits.csv", "missing.csv", ".", "dynpin", "1 second", "0 days"]),
    st.sampled_from(["rotation", "loss", "compromise", "ca-change", "attack", "mistake", "unpin", "36500 days"]),
    st.integers(0, 90).map("{} days".format),
    st.text(max_size=5),
)
VALUES = st.recursive(
    NUMBERS | TEXTS | st.booleans() | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=4,
)


def seldom(strategy: st.SearchStrategy[Any], otherwise: Any) -> st.SearchStrategy[Any]:
    return st.integers(0, 7).flatmap(lambda number: strategy if number == 7 else st.just(otherwise))


def tables(like: Mapping[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A valid table, except that now and then a value is anything or missing."""
    wrong = seldom(st.dictionaries(st.sampled_from([*like, *KEYS]), VALUES, min_size=1, max_size=2), {})
    without = seldom(st.sampled_from(list(like)), None)
    return st.tuples(wrong, without).map(
        lambda drawn: {key: value for key, value in {**like, **drawn[0]}.items() if key != drawn[1]}
    )


STUDIES = st.fixed_dictionaries(
    {
        "population": seldom(VALUES, "website")
        | st.lists(st.one_of(*map(tables, RIGHT["population"])), min_size=1, max_size=3),
        "policy": st.lists(st.one_of(*map(tables, RIGHT["policy"])), min_size=1, max_size=2),
        "event": st.lists(st.one_of(*map(tables, RIGHT["event"])), max_size=4),
        "risks": tables(RIGHT["risks"]),
        "recovery": tables(RIGHT["recovery"]),
        "client_cap": st.sampled_from(["45 days", "1 second", "36500 days"]),
    },
    optional={"days": st.integers(99, 3660) | NUMBERS, "client": TEXTS, "seed": NUMBERS},
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("studies")
    (found / "visits.csv").write_text("client,second\na,5\na,77\n")
    return found


@settings(max_examples=400)
@given(values=STUDIES)
def test_a_study_with_any_content_is_played_or_refused(folder: Path, values: dict[str, Any]) -> None:
    try:
        study = study_of(values, folder)
    except InvalidStudy as error:
        assert str(error)  # noqa: PT017 - either outcome is right
        return
    # A few days of it: the calendar can be laid out, and clients can be drawn.
    outcomes = simulate(replace(study, clients=3, days=min(study.days, 12)), processes=1)
    for outcome in outcomes:
        assert 0 <= outcome.locked_out_days <= 3 * 12
        assert 0 <= outcome.fooled_days <= 3 * 12
        assert outcome.tally.visits >= outcome.tally.refused_visits >= 0
        assert outcome.with_recovery is not None
        assert 0 <= outcome.with_recovery.locked_out_days <= 3 * 12


@given(
    content=st.lists(
        st.tuples(st.text("ab", max_size=2), st.one_of(st.integers(), st.floats(), st.text(max_size=4))), max_size=8
    )
)
def test_traces_with_any_content_are_used_or_refused(folder: Path, content: list[tuple[str, Any]]) -> None:
    file = folder / "any.csv"
    file.write_text("client,second\n" + "".join(f"{client},{second}\n" for client, second in content), "utf-8")
    try:
        length, visits = read_traces(file)
    except InvalidStudy as error:
        assert str(file) in str(error)  # noqa: PT017 - either outcome is right
        return
    drawn = Population((Traces("any", 1, length, visits),)).draw(np.random.default_rng(1), 5, 3 * DAY)
    assert drawn.keys.size <= 5 * 3 * 1441
