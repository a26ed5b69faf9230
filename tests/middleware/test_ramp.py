"""The ramp: up while no reports come in, never by the clock alone, never down by itself, the same in every process."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynpin import PolicyError
from dynpin.middleware import Policy, PublicKeyPinsWSGIMiddleware
from dynpin.middleware.collector import new_api_token
from dynpin.middleware.policy.ramp.driver import Driver
from dynpin.middleware.policy.ramp.driver import driver as the_driver
from dynpin.middleware.policy.ramp.reports import ask
from dynpin.middleware.policy.ramp.state import RampFile
from dynpin.middleware.policy.steps import ASK_EVERY, DEFAULT_STEPS, CollectorAnswer, Position, Ramp, Step, decide
from dynpin.middleware.policy.toml import read_inventory
from tests.deploy.commands import dynpin
from tests.middleware.collector.conftest import Clock, running_site
from tests.middleware.collector.conftest import Site as Collector
from tests.middleware.conftest import HOST, Site

MINUTE, HOUR, DAY = 60, 3600, 86_400
TARGET = 30 * DAY
STEPS = '[{ send = "report-only", for = "2 hours" }, { send = "5 minutes", for = "1 hour" }]'
REPORT = {"hostname": HOST, "port": 443, "known-pins": ["d6qzRu9zOECb90Uez27xWltNsj0e1Md7GkYYkVoZWmM="]}


class Server:
    """One process of a server: a policy from an inventory, and what moves its ramp."""

    def __init__(self, inventory: Path, clock: Clock) -> None:
        self.clock = clock
        self.policy = Policy.from_inventory(inventory)
        self.driver = Driver(interval=3600, clock=clock)
        self.driver.add(self.policy)

    def run(self, seconds: float) -> None:
        """Let time pass, with a look every few minutes, as the thread does."""
        end = self.clock.now + seconds
        while self.clock.now < end:
            self.clock.forward(min(ASK_EVERY, end - self.clock.now))
            self.look()

    def look(self) -> None:
        self.driver.look()
        self.policy.refresh()

    def sent(self) -> object:
        """The max-age that is sent, or that it is report-only."""
        header = self.policy.header
        assert header is not None
        return "report-only" if header.report_only else header.max_age


class Ground:
    """A site with a ramp, and a real collector that can be switched off and on."""

    def __init__(self, site: Site, stack: ExitStack) -> None:
        self.site, self.stack, self.clock = site, stack, Clock()
        self.inventory = site.folder.parent / "dynpin.toml"
        self.state = site.folder.parent / "dynpin-ramp.sqlite"
        self.collector = self.collect()

    def collect(self, **options: Any) -> Collector:
        options = {"clock": self.clock, "file": self.site.folder / "reports.sqlite", **options}
        self.collector = self.stack.enter_context(running_site(**options))
        return self.collector

    def describe(self, ramp: str = f"steps = {STEPS}", *, token: str = "demo", mode: str = "enforce") -> Path:
        self.inventory.write_text(
            f'hosts = ["{HOST}"]\nkeys = ["tls/fullchain.pem"]\nbackups = ["tls/backup.pub"]\n[policy]\n'
            f'max_age = "30 days"\nmode = "{mode}"\nreport_uri = "{self.collector.url}/r/{token}/enforce"\n'
            f"[ramp]\n{ramp}\n"
        )
        return self.inventory

    def server(self, ramp: str = f"steps = {STEPS}", **more: str) -> Server:
        server = Server(self.describe(ramp, **more), self.clock)
        self.stack.callback(server.driver.before_fork)
        server.look()
        return server

    def report(self, **members: object) -> None:
        assert self.collector.post(REPORT | members).status_code == 204

    def mark(self, state: str) -> None:
        self.collector.groups()  # what waits is stored
        with sqlite3.connect(self.collector.file) as db:
            db.execute("UPDATE groups SET state = ?", (state,))
        db.close()


@pytest.fixture
def ground(site: Site) -> Iterator[Ground]:
    with ExitStack() as stack:
        yield Ground(site, stack)


# -- in a server, with a real collector ------------------------------------------------------------------------------


def test_it_climbs_to_the_target_while_no_reports_come_in(ground: Ground) -> None:
    times = [("report-only", 2 * HOUR), ("5 minutes", HOUR), ("1 hour", 90 * MINUTE), ("1 day", HOUR)]
    steps = ", ".join(f'{{ send = "{send}", for = "{stay} seconds" }}' for send, stay in times)
    server = ground.server(f"steps = [{steps}]")
    assert str(server.policy.header) == ground.site.expected(f'report-uri="{ground.collector.url}/r/demo/report-only"')
    levels: list[int | str] = ["report-only", 5 * MINUTE, HOUR, DAY, TARGET]
    for (_, stay), level, following in zip(times, levels, levels[1:], strict=False):
        server.run(stay - ASK_EVERY)
        assert server.sent() == level
        server.run(ASK_EVERY)
        assert server.sent() == following
    assert str(server.policy.header) == ground.site.expected(
        f'max-age={TARGET}; report-uri="{ground.collector.url}/r/demo/enforce"'
    )
    server.run(HOUR)
    assert server.sent() == TARGET


def test_a_server_that_starts_again_goes_on_where_it_was(ground: Ground) -> None:
    ground.server().run(2 * HOUR)
    again = ground.server()
    assert again.sent() == 5 * MINUTE
    again.run(HOUR - ASK_EVERY)
    # A whole day in which no server ran is a quarter of an hour of quiet at most.
    ground.clock.forward(DAY)
    last = ground.server()
    last.run(ASK_EVERY)
    assert last.sent() == TARGET


def test_a_clock_that_jumps_moves_nothing(ground: Ground) -> None:
    server = ground.server()
    ground.clock.forward(60 * DAY)
    server.look()
    assert server.sent() == "report-only"
    ground.clock.forward(-61 * DAY)
    server.look()
    server.run(HOUR)
    assert server.sent() == "report-only"


def test_a_clock_that_was_ahead_when_the_ramp_began_hides_no_report(ground: Ground) -> None:
    ground.clock.forward(365 * DAY)
    server = ground.server()
    ground.clock.forward(-365 * DAY)
    server.look()
    ground.report()
    server.run(5 * HOUR)
    assert server.sent() == "report-only"
    ground.mark("resolved")
    server.run(3 * HOUR)
    # By the file too, by which guard and rotate count, what is sent now was sent last.
    assert [max_age for _, max_age in RampFile(ground.state, "demo").sent()] == [None, 5 * MINUTE, TARGET]
    assert server.sent() == TARGET


def test_an_open_group_holds_it_behind_any_number_of_others(ground: Ground) -> None:
    server = ground.server()
    ground.report()
    ground.collector.groups()
    with closing(sqlite3.connect(ground.collector.file)) as db, db:
        columns = [row[1] for row in db.execute("PRAGMA table_info(groups)") if row[1] not in ("id", "key", "state")]
        for number in range(600):  # more than one answer of the collector holds
            db.execute(
                f"INSERT INTO groups (key, state, {', '.join(columns)}) "
                f"SELECT ?, 'resolved', {', '.join(columns)} FROM groups WHERE state = 'open'",
                (f"{number:032x}",),
            )
        db.execute("UPDATE groups SET last_seen = last_seen + 1 WHERE state = 'resolved'")
    server.run(5 * HOUR)
    assert server.sent() == "report-only"


def test_a_collector_that_has_lost_an_open_group_moves_nothing(
    ground: Ground, caplog: pytest.LogCaptureFixture
) -> None:
    server = ground.server()
    ground.report()
    server.run(ASK_EVERY)
    ground.collect(file=ground.site.folder / "new.sqlite")
    ground.describe()
    server.policy.refresh()
    server.run(5 * HOUR)
    assert server.sent() == "report-only"
    assert "has lost reports that nobody had looked at" in caplog.text
    assert "has lost reports" in ramp(ground, "next", code=1)
    assert "report-only" in ramp(ground, "restart")
    server.run(2 * HOUR + ASK_EVERY)
    assert server.sent() == 5 * MINUTE


def test_what_is_muted_is_not_lost(ground: Ground) -> None:
    server = ground.server()
    ground.report()
    server.run(ASK_EVERY)
    ground.mark("muted")
    server.run(2 * HOUR)
    assert server.sent() == 5 * MINUTE


def test_two_policies_share_no_file(ground: Ground, caplog: pytest.LogCaptureFixture) -> None:
    ground.collect(tokens=["demo", "other"], file=ground.site.folder / "both.sqlite")
    server = ground.server()
    refusal = r"keeps the ramp of another report-uri\. Name another file: \[ramp\] state"
    with pytest.raises(PolicyError, match=refusal):
        Policy.from_inventory(ground.describe(token="other"))
    with pytest.raises(PolicyError, match=refusal):
        RampFile(ground.state, "other").sent()
    with pytest.raises(PolicyError, match=refusal):
        RampFile(ground.state, "other").change(RAMP.begin(0), lambda position, _: position, 0)
    server.policy.refresh()
    assert "the last good header stays" in caplog.text
    apart = ground.server(f'state = "other.sqlite"\nsteps = {STEPS}', token="other")
    assert apart.sent() == "report-only"


def test_a_file_of_a_later_version_is_left_alone(ground: Ground) -> None:
    ground.server()
    with closing(sqlite3.connect(ground.state)) as db, db:
        db.execute("PRAGMA user_version = 2")
    with pytest.raises(PolicyError, match="written by a newer version of dynpin"):
        RampFile(ground.state, "demo").read()


def test_a_report_holds_it_until_somebody_has_looked(ground: Ground, caplog: pytest.LogCaptureFixture) -> None:
    server = ground.server()
    server.run(2 * HOUR)
    ground.report()
    server.run(3 * HOUR)
    assert server.sent() == 5 * MINUTE
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(told) == 1
    assert f"1 group of reports is open at {ground.collector.url}" in told[0]
    ground.mark("resolved")
    server.run(ASK_EVERY)
    assert server.sent() == TARGET


def test_quiet_begins_anew_with_each_report(ground: Ground) -> None:
    server = ground.server()
    server.run(2 * HOUR)
    ground.report()
    ground.mark("resolved")
    server.run(45 * MINUTE)
    # It comes again, though somebody thought that it was fixed.
    ground.report()
    server.run(45 * MINUTE)
    assert server.sent() == 5 * MINUTE
    server.run(20 * MINUTE)
    assert server.sent() == TARGET


def test_what_is_muted_does_not_count_nor_does_what_came_before(ground: Ground) -> None:
    ground.report()
    ground.clock.forward(HOUR)
    server = ground.server()
    ground.report(hostname=f"www.{HOST}")
    ground.mark("muted")
    server.run(2 * HOUR)
    assert server.sent() == 5 * MINUTE


def test_reports_of_another_policy_do_not_count(ground: Ground) -> None:
    ground.collect(tokens=["demo", "other"], file=ground.site.folder / "both.sqlite")
    server = ground.server()
    assert ground.collector.post(REPORT, "/r/other/enforce").status_code == 204
    server.run(2 * HOUR)
    assert server.sent() == 5 * MINUTE


def test_what_cannot_ask_does_not_move(ground: Ground, caplog: pytest.LogCaptureFixture) -> None:
    server = ground.server()
    ground.stack.close()
    server.run(10 * HOUR)
    assert server.sent() == "report-only"
    [told] = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert "The ramp stays at report-only" in told
    assert "cannot be asked" in told


@pytest.mark.parametrize(
    ("options", "ramp", "token", "words"),
    [
        ({}, "", "unknown", "/r/unknown/enforce answers 404 to a report: is its token known"),
        ({"open_access": False, "password": "right"}, "", "demo", "/api/groups answers 401; a token of scope read"),
        ({}, 'token_file = "absent"', "demo", "absent cannot be read (No such file or directory)"),
        ({}, 'ca = "absent"', "demo", "absent cannot be read (No such file or directory)"),
        ({}, 'collector = "http://127.0.0.1:1/"', "demo", "http://127.0.0.1:1 cannot be asked"),
        ({}, 'collector = "{url}/r"', "demo", "/r/api/groups"),
    ],
    ids=["unknown token", "no token", "no token file", "no roots", "nobody there", "no collector"],
)
def test_a_collector_that_says_nothing(
    options: dict[str, Any], ramp: str, token: str, words: str, ground: Ground, caplog: pytest.LogCaptureFixture
) -> None:
    ground.collect(**options, file=ground.site.folder / "another.sqlite")
    steps = 'steps = [{ send = "report-only", for = "1 hour" }]\n'
    server = ground.server(steps + ramp.format(url=ground.collector.url), token=token)
    server.run(2 * HOUR)
    assert server.sent() == "report-only"
    assert words in caplog.text


@pytest.mark.parametrize("in_file", [True, False], ids=["token_file", "environment"])
def test_it_reads_with_a_token(in_file: bool, ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    ground.collect(open_access=False, password="right", file=ground.site.folder / "closed.sqlite")
    text, token = new_api_token("ramp", ["read"], ground.clock(), 30)
    ground.collector.storage.add_api_token(token)
    if in_file:
        (ground.site.folder.parent / "secret").write_text(f"{text}\n", encoding="utf-8-sig")
    else:
        monkeypatch.setenv("DYNPIN_COLLECTOR_TOKEN", text)
    more = 'token_file = "secret"\n' if in_file else ""
    server = ground.server(f"{more}steps = {STEPS}")
    server.run(2 * HOUR)
    assert server.sent() == 5 * MINUTE


@pytest.mark.parametrize(
    ("scope", "said"),
    [
        ("site:{host}", ""),
        ("site:other.test", "the token reads about other.test alone"),
        ("site:www.{host}", "a token of scope site:{host} or read"),
    ],
)
def test_what_a_token_does_not_see_is_not_quiet(scope: str, said: str, ground: Ground) -> None:
    ground.collect(open_access=False, password="right", file=ground.site.folder / "closed.sqlite")
    ground.server()
    ramp = read_inventory(ground.inventory).ramp
    assert ramp is not None
    (host,) = ramp.hosts
    text, token = new_api_token("ramp", [scope.format(host=host)], ground.clock(), 30)
    ground.collector.storage.add_api_token(token)
    secret = ground.site.folder.parent / "secret"
    secret.write_text(text)
    answer = ask(replace(ramp, token_file=secret), 0)
    assert said.format(host=host) in answer.failure
    assert bool(answer.failure) == bool(said)


def test_the_workers_of_a_server_agree(ground: Ground) -> None:
    workers = [ground.server(), ground.server(), ground.server()]
    while ground.clock.now < 1_800_000_000 + 2 * HOUR:
        ground.clock.forward(ASK_EVERY)
        at_once = [threading.Thread(target=worker.driver.look) for worker in workers]
        for thread in at_once:
            thread.start()
        for thread in at_once:
            thread.join()
    for worker in workers:
        worker.policy.refresh()
    assert [worker.sent() for worker in workers] == [5 * MINUTE] * 3
    assert [max_age for _, max_age in RampFile(ground.state, "demo").sent()] == [None, 5 * MINUTE]


def test_the_header_follows_the_file_within_two_looks(ground: Ground) -> None:
    # What moves the ramp is one process, and what sends the header another.
    server = ground.server()
    other = Policy.from_inventory(ground.inventory)
    server.run(2 * HOUR)
    assert other.signature() != other.made_from
    assert other.refresh()
    assert other.header == server.policy.header


def test_a_policy_that_is_not_enforced_begins_anew(ground: Ground) -> None:
    server = ground.server()
    server.run(2 * HOUR)
    ground.describe(mode="unpin")
    server.look()
    assert server.sent() == 0
    server.look()
    ground.describe()
    server.policy.refresh()
    assert server.sent() == "report-only"
    assert [max_age for _, max_age in RampFile(ground.state, "demo").sent()] == [None, 5 * MINUTE, None]


def test_a_ramp_may_come_and_go_while_the_server_runs(ground: Ground) -> None:
    server = ground.server()
    ground.inventory.write_text(ground.inventory.read_text().partition("[ramp]")[0])
    server.look()
    server.look()
    assert (server.sent(), server.policy.ramp) == (TARGET, None)
    ground.describe()
    server.look()
    assert server.sent() == "report-only"


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["a folder", "a pipe"])
def test_what_is_no_file_keeps_no_position(make: Callable[[Path], None], ground: Ground) -> None:
    ground.describe()
    make(ground.state)
    with pytest.raises(PolicyError, match=r"dynpin-ramp\.sqlite keeps no position on a ramp"):
        Policy.from_inventory(ground.inventory)


def test_a_damaged_file_is_no_reason_to_guess(ground: Ground, caplog: pytest.LogCaptureFixture) -> None:
    server = ground.server()
    server.run(2 * HOUR)
    ground.state.write_bytes(b"damaged" * 1000)
    server.look()
    assert server.sent() == 5 * MINUTE
    assert "the last good header stays" in caplog.text
    with pytest.raises(PolicyError, match=r"dynpin-ramp\.sqlite, which keeps the position on the ramp, cannot be used"):
        Policy.from_inventory(ground.inventory)


def test_a_folder_that_cannot_be_written_is_told_and_moves_nothing(
    ground: Ground, caplog: pytest.LogCaptureFixture
) -> None:
    server = ground.server(f'state = "absent/ramp.sqlite"\nsteps = {STEPS}')
    server.run(5 * HOUR)
    assert server.sent() == "report-only"
    [told] = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert "The ramp stays where it is" in told
    assert "needs to write to it and to its folder" in told


def test_a_report_only_policy_beside_the_foot_of_the_ramp_is_not_dropped_in_silence(
    ground: Ground, caplog: pytest.LogCaptureFixture
) -> None:
    trial = Policy(**ground.site.options | {"mode": "report-only", "max_age": None, "report_uri": "https://r.test/"})
    said = "until it moves up the header of report_only= is not sent"
    server = ground.server()
    PublicKeyPinsWSGIMiddleware(lambda environ, start_response: [], server.policy, report_only=trial)
    assert said in caplog.text
    caplog.clear()
    server.run(2 * HOUR)
    PublicKeyPinsWSGIMiddleware(lambda environ, start_response: [], server.policy, report_only=trial)
    assert said not in caplog.text


def test_the_middleware_drives_it(ground: Ground) -> None:
    Policy.from_inventory(ground.describe()).watch()
    assert the_driver.is_alive
    assert the_driver.thread is not None
    assert the_driver.thread.daemon


# -- the rule --------------------------------------------------------------------------------------------------------

RAMP = Ramp(DEFAULT_STEPS, TARGET, "http://c", "t", "http://c/r/t/enforce", Path("ramp"))
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
    # It counts as a report: the quiet time begins anew.
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
    # An hour was reached, which is no step any more.
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
        ("http://reports.test", {"token": "abc"}, "the token is not sent to http://reports.test: over http"),
        ("http://10.0.0.7:8080", {"token": "abc"}, "the token is not sent to http://10.0.0.7:8080: over http"),
        ("https://127.0.0.1:1", {}, "the token file {folder}/token cannot be read (No such file or directory)"),
        ("https://127.0.0.1:1", {"token": "\n"}, "the token file {folder}/token has no token in its first line"),
        ("https://127.0.0.1:1", {"token": "a\x07b"}, "{folder}/token has no token, but what no header can carry"),
        (
            "https://127.0.0.1:1",
            {"token": "abc"},
            "the roots of the collector, {folder}/ca cannot be read (No such file",
        ),
        ("https://127.0.0.1:1", {"token": "abc", "ca": "no PEM"}, "{folder}/ca, are no certificates in PEM"),
    ],
)
def test_what_keeps_it_from_asking_is_said(collector: str, files: dict[str, str], said: str, tmp_path: Path) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    sight = ask(replace(RAMP, collector=collector, token_file=tmp_path / "token", ca=tmp_path / "ca"), 0)
    assert said.format(folder=tmp_path) in sight.failure


def test_a_pipe_in_the_place_of_the_token_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "token")
    answer = ask(replace(RAMP, collector="https://127.0.0.1:1", token_file=tmp_path / "token"), 0)
    assert "has no token in its first line" in answer.failure


# -- the command -----------------------------------------------------------------------------------------------------


def ramp(ground: Ground, *arguments: str, code: int = 0) -> str:
    now = datetime.fromtimestamp(ground.clock.now, UTC).isoformat()
    result = dynpin("ramp", *arguments, "--inventory", str(ground.inventory), "--now", now)
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.output


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
    assert "has no ramp: a line [ramp] in it begins one" in ramp(ground, verb, code=2)
    ground.describe(mode="unpin")
    assert "mode = 'unpin'" in ramp(ground, verb, code=2)


# -- the rotation counts what was really sent ------------------------------------------------------------------------


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

    # Without a history the ramp's own file tells; with one, both.
    server.run(ASK_EVERY)
    assert guarded() == (0, f"no client holds a policy of {HOST}")
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
