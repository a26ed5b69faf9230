"""The ramp in a server, with a real collector: up while nobody reports, never down by itself, in each process."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dynpin import PolicyError
from dynpin.middleware import Policy, PublicKeyPinsWSGIMiddleware
from dynpin.middleware.collector import new_api_token
from dynpin.middleware.policy.ramp.driver import driver as the_driver
from dynpin.middleware.policy.ramp.reports import ask
from dynpin.middleware.policy.ramp.state import RampFile
from dynpin.middleware.policy.steps import ASK_EVERY
from dynpin.middleware.policy.toml import read_inventory
from tests.middleware.conftest import HOST, Site

from .ramps import DAY, HOUR, MINUTE, RAMP, REPORT, STEPS, TARGET, Ground, ramp


@pytest.fixture
def ground(site: Site) -> Iterator[Ground]:
    with ExitStack() as stack:
        yield Ground(site, stack)


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
        ({}, "", "unknown", "/r/unknown/enforce answers 404 to a report; check that the collector knows its token"),
        ({"open_access": False, "password": "right"}, "", "demo", "/api/groups answers 401; put a token of scope read"),
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
        ("site:other.test", "the token may read only about other.test"),
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
    assert "must be able to write to it and to its folder" in told


def test_a_report_only_policy_beside_the_foot_of_the_ramp_is_not_dropped_in_silence(
    ground: Ground, caplog: pytest.LogCaptureFixture
) -> None:
    trial = Policy(**ground.site.options | {"mode": "report-only", "max_age": None, "report_uri": "https://r.test/"})
    said = "until it moves up, the header of report_only= is not sent"
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
