"""The rule of the ramp, never by the clock alone; its command; and what a rotation counts of it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynpin.middleware.policy.ramp.reports import ask
from dynpin.middleware.policy.steps import ASK_EVERY, DEFAULT_STEPS, CollectorAnswer, Position, Step, decide
from tests.deploy.commands import dynpin
from tests.middleware.conftest import HOST, Site

from .ramps import DAY, HOUR, MINUTE, RAMP, TARGET, Ground, ramp


@pytest.fixture
def ground(site: Site) -> Iterator[Ground]:
    with ExitStack() as stack:
        yield Ground(site, stack)


# -- the rule ---------------------------------------------------------------------------------------------------------


LEVELS = [None, *(step.max_age for step in DEFAULT_STEPS[1:]), TARGET]


SIGHTS = st.builds(
    CollectorAnswer,
    last_report_at=st.one_of(st.none(), st.integers(0, 10**7)),
    open_groups=st.integers(0, 2),
    failure=st.sampled_from(["", "", "", "silent"]),
)


@given(st.lists(st.tuples(st.integers(-DAY, 90 * DAY), SIGHTS), max_size=200))
def test_it_never_skips_a_step_never_falls_and_never_hurries(course: list[tuple[int, CollectorAnswer]]) -> None:
    position, now, quiet = RAMP.begin(0), 0.0, 0.0
    for seconds, answer in course:
        now += seconds
        after = decide(position, RAMP, answer, now)
        quiet = 0.0 if after.waited == 0 else quiet + min(max(seconds, 0), 3 * ASK_EVERY)
        if after.max_age != position.max_age:
            assert after.max_age == RAMP.above(position.max_age)
            assert (answer.failure, answer.open_groups) == ("", 0)
            assert position.waited + 3 * ASK_EVERY >= RAMP.stay(position.max_age)
        assert after.waited <= quiet + 3 * ASK_EVERY
        position = after


def test_a_report_from_the_future_disturbs_once_and_hides_no_other() -> None:
    def asked(position: Position, answer: CollectorAnswer, times: int) -> Position:
        for _ in range(times):
            position = decide(position, RAMP, answer, (position.asked_at or 0) + ASK_EVERY)
        return position

    stay, future = RAMP.stay(None), 365.0 * DAY
    a_day = DAY // ASK_EVERY
    quiet = asked(RAMP.begin(0), CollectorAnswer(), a_day)
    assert quiet.waited > 0
    # It counts as a report: the quiet time starts again.
    reported = asked(quiet, CollectorAnswer(future, 1, newest_at=future), 1)
    assert reported.waited == 0
    # Looked at, it keeps nothing waiting for a year.
    resolved = CollectorAnswer(future, 0, newest_at=future)
    assert asked(reported, resolved, stay // ASK_EVERY).max_age == 5 * MINUTE
    # Behind it another comes in, and is told by its open group alone.
    waiting = asked(reported, resolved, a_day)
    assert waiting.waited > 0
    assert asked(waiting, CollectorAnswer(future, 1, newest_at=future), 1).waited == 0
    # Muted, it hides nothing any more: what comes in later counts at once, and what came in before does not.
    muted = asked(waiting, CollectorAnswer(DAY, 0, newest_at=future), 1)
    assert muted.waited > waiting.waited
    assert asked(muted, CollectorAnswer(muted.asked_at and muted.asked_at + 1, 0, newest_at=future), 1).waited == 0


def test_without_trouble_the_usual_steps_take_four_weeks() -> None:
    position, now = RAMP.begin(0), 0
    days: dict[int | None, float] = {}
    while position.max_age != TARGET:
        days.setdefault(position.max_age, now / DAY)
        now += ASK_EVERY
        position = decide(position, RAMP, CollectorAnswer(), now)
    # Five minutes more for the first answer, from which on quiet is counted.
    assert [round(day) for day in days.values()] == [0, 7, 8, 10, 14]
    assert now == 28 * DAY + ASK_EVERY


def test_every_level_leads_to_the_next() -> None:
    climbed, level = [RAMP.levels[0]], RAMP.above(None)
    while level is not None:
        climbed.append(level)
        level = RAMP.above(level)
    assert climbed == LEVELS
    assert [RAMP.below(each) for each in LEVELS] == [None, *LEVELS[:-1]]


def test_steps_that_were_edited_keep_what_was_reached() -> None:
    edited = replace(RAMP, steps=(Step(None, 1), Step(2 * HOUR, 7)), target=DAY)
    # An hour was reached, which is not a step any more.
    assert (edited.above(HOUR), edited.stay(HOUR), edited.below(HOUR)) == (2 * HOUR, 1, None)
    assert (edited.above(3 * HOUR), edited.stay(3 * HOUR), edited.below(3 * HOUR)) == (DAY, 7, 2 * HOUR)
    assert edited.above(TARGET) is None
    assert replace(RAMP, steps=()).begin(0).max_age == TARGET


def test_a_person_holds_it() -> None:
    held = Position(0, None, waited=30 * DAY, asked_at=0.0, is_held=True)
    assert decide(held, RAMP, CollectorAnswer(), 1.0).max_age is None
    assert decide(replace(held, is_held=False), RAMP, CollectorAnswer(), 1.0).max_age == 5 * MINUTE


@pytest.mark.parametrize(
    ("collector", "files", "said"),
    [
        ("http://reports.test", {"token": "abc"}, "the token is not sent to http://reports.test: others could read it"),
        (
            "http://10.0.0.7:8080",
            {"token": "abc"},
            "the token is not sent to http://10.0.0.7:8080: others could read it",
        ),
        ("https://127.0.0.1:1", {}, "the token file {folder}/token cannot be read (No such file or directory)"),
        ("https://127.0.0.1:1", {"token": "\n"}, "the token file {folder}/token has no token in its first line: write"),
        ("https://127.0.0.1:1", {"token": "\udcff"}, "the token file {folder}/token is not UTF-8 text"),
        (
            "https://127.0.0.1:1",
            {"token": "a\x07b"},
            "{folder}/token has a text that cannot be a token: no header can carry it",
        ),
        (
            "https://127.0.0.1:1",
            {"token": "abc"},
            "the roots of the collector, {folder}/ca cannot be read (No such file",
        ),
        ("https://127.0.0.1:1", {"token": "abc", "ca": "no PEM"}, "{folder}/ca, are not certificates in PEM"),
    ],
)
def test_what_keeps_it_from_asking_is_said(collector: str, files: dict[str, str], said: str, tmp_path: Path) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content.encode("utf-8", "surrogateescape"))
    sight = ask(replace(RAMP, collector=collector, token_file=tmp_path / "token", ca=tmp_path / "ca"), 0)
    assert said.format(folder=tmp_path) in sight.failure


def test_a_pipe_in_the_place_of_the_token_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "token")
    answer = ask(replace(RAMP, collector="https://127.0.0.1:1", token_file=tmp_path / "token"), 0)
    assert "nothing writes to this pipe" in answer.failure


# -- the command ------------------------------------------------------------------------------------------------------


def test_status_shows_the_way_and_what_stands_in_it(ground: Ground) -> None:
    ground.describe()
    assert "The ramp has not begun" in ramp(ground, "status")
    server = ground.server()
    server.run(HOUR)
    shown = ramp(ground, "status")
    assert "▶ report-only             2 hours of quiet: 1 hour until now" in shown
    assert "max-age of 5 minutes follows at 2027-01-15T10:00:00Z or later" in shown
    ground.report()
    server.run(ASK_EVERY)
    assert f"1 group of reports is open at {ground.collector.url}" in ramp(ground, "status", code=1)
    answer = json.loads(dynpin("ramp", "status", "--json", "--inventory", str(ground.inventory)).stdout)
    assert (answer["max_age"], answer["next"], answer["waited"], answer["stay"]) == (None, 300, 0, 2 * HOUR)


def test_a_hand_on_the_ramp(ground: Ground) -> None:
    server = ground.server()
    assert "it has been quiet for 0 seconds of 2 hours" in ramp(ground, "next", code=1)
    assert "report-only -> max-age of 5 minutes" in ramp(ground, "next", "--force")
    server.look()
    assert server.sent() == 5 * MINUTE
    ramp(ground, "hold")
    server.run(2 * HOUR)
    assert server.sent() == 5 * MINUTE
    assert "dynpin ramp hold" in ramp(ground, "status", code=1)
    ramp(ground, "resume")
    server.run(ASK_EVERY)
    assert server.sent() == TARGET
    assert "at its end" in ramp(ground, "next", code=1)
    assert "30 days -> max-age of 5 minutes" in ramp(ground, "back")
    assert "-> report-only" in ramp(ground, "back")
    assert "report-only, as before" in ramp(ground, "back")
    assert json.loads(ramp(ground, "back", "--json")) == {"before": None, "max_age": None, "held": False}
    assert json.loads(ramp(ground, "hold", "--json"))["held"] is True
    assert json.loads(ramp(ground, "resume", "--json"))["held"] is False
    upwards = json.loads(ramp(ground, "next", "--force", "--json"))
    assert upwards == {"before": None, "max_age": 5 * MINUTE, "held": False}
    ramp(ground, "back")
    ramp(ground, "next", "--force")
    assert "-> report-only" in ramp(ground, "restart")
    server.look()
    assert server.sent() == "report-only"


@pytest.mark.parametrize("verb", ["status", "next", "back", "hold", "resume", "restart"])
def test_without_a_ramp_the_command_says_how_to_begin_one(verb: str, ground: Ground) -> None:
    ground.describe()
    ground.inventory.write_text(ground.inventory.read_text().partition("[ramp]")[0])
    assert "has no ramp: add a line [ramp]" in ramp(ground, verb, code=2)
    ground.describe(mode="unpin")
    assert "mode = 'unpin'" in ramp(ground, verb, code=2)


# -- the rotation counts what was really sent -------------------------------------------------------------------------


def test_a_rotation_waits_for_the_longest_max_age_that_was_sent(
    ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Site(tmp_path / "other", ground.site.authority)
    server = ground.server()
    monkeypatch.chdir(ground.inventory.parent)

    def guarded() -> tuple[int, str]:
        now = datetime.fromtimestamp(ground.clock.now, UTC).isoformat()
        result = dynpin("guard", str(other.chain), "--now", now, "--json")
        verdict = json.loads(result.stdout)
        return result.exit_code, verdict["held"] or verdict["reasons"][0]["message"]

    # Without a history the ramp's own file tells, and nothing says what was sent before the ramp. With one, both tell.
    server.run(ASK_EVERY)
    assert guarded() == (1, f"no client holds a policy of {HOST}")
    start = "2027-01-15T08:00:00Z"
    assert dynpin("rotate", "record", "--now", start).exit_code == 0
    # In report-only nobody holds anything.
    assert guarded() == (0, f"no client holds a policy of {HOST}")
    server.run(2 * HOUR - ASK_EVERY)
    assert "until 2027-01-15T10:05:00Z" in guarded()[1]
    server.run(HOUR)
    assert "until 2027-02-14T11:00:00Z" in guarded()[1]
    # A step back does not make those forget who were told to remember for long.
    ramp(ground, "back")
    ground.clock.forward(HOUR)
    assert "until 2027-02-14T11:00:00Z" in guarded()[1]
    ramp(ground, "restart")
    Path("dynpin-history.json").unlink()
    assert "until 2027-02-14T11:00:00Z" in guarded()[1]
