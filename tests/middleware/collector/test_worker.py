"""The worker: what runs whether or not a report comes, once however many there are, and while nobody waits for it."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from dynpin.middleware.collector import Alerts, Retention, ServiceSettings
from dynpin.middleware.collector.service import Service
from dynpin.middleware.collector.storage import Filter, Group
from dynpin.middleware.collector.worker import clock_jump
from tests.clock import Clock
from tests.middleware.collector.conftest import NOW, Start, posted, report, vector

DAY = 86_400
Build = Callable[..., Service]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def build(tmp_path: Path, clock: Clock) -> Iterator[Build]:
    """Makes a service on the one file: what one process of a collector has."""
    with ExitStack() as stack:

        def one(**options: Any) -> Service:
            usual: dict[str, Any] = {"tokens": ["demo"], "clock": clock}
            service = Service(tmp_path / "reports.sqlite", ServiceSettings(**usual | options), has_worker=False)
            stack.callback(service.close)
            return service

        yield one


def receive(service: Service, body: object) -> None:
    assert posted(service, body) == 204


def groups(service: Service) -> list[Group]:
    return service.storage.groups(Filter()).entries


# -- whether or not a report comes ------------------------------------------------------------------------------------


def test_what_is_old_goes_without_a_report_and_after_a_restart(build: Build, clock: Clock) -> None:
    first = build()
    receive(first, report())
    first.worker.work()
    first.close()
    clock.forward(91 * DAY)
    again = build()
    again.worker.work()
    assert len(groups(again)) == 1, "the clock may be wrong, until it has stood for three days"
    clock.forward(3 * DAY)
    again.worker.work()
    assert groups(again) == []


def test_a_worker_whose_clock_jumped_leaves_the_work_to_another(build: Build, clock: Clock) -> None:
    ahead, other = build(), build()
    receive(ahead, report())
    ahead.worker.work()
    clock.forward(365 * DAY)
    ahead.worker.work()
    clock.forward(-365 * DAY + 3600)
    other.worker.work()
    assert len(groups(other)) == 1
    assert clock_jump(other.storage) is None


def test_retention_runs_once_an_hour(build: Build, clock: Clock) -> None:
    service = build(retention=Retention(days=0.01))
    service.worker.work()
    receive(service, report())
    clock.forward(3599)
    service.worker.work()
    assert len(groups(service)) == 1
    clock.forward(1)
    service.worker.work()
    assert groups(service) == []


def test_a_digest_comes_without_a_report(build: Build, clock: Clock) -> None:
    told: list[str] = []
    alerts = Alerts(lambda subject, text: told.append(subject), digest="daily")
    build(alerts=alerts).worker.work()
    clock.forward(DAY)
    for _ in range(2):
        build(alerts=alerts).worker.work()
    assert told == ["dynpin: daily digest"]


# -- once, however many workers ---------------------------------------------------------------------------------------


def test_an_alert_comes_once(build: Build, clock: Clock) -> None:
    told: list[str] = []
    workers = [build(alerts=Alerts(lambda subject, text: told.append(subject))) for _ in range(3)]
    receive(workers[0], report())
    for _ in range(3):
        for each in workers:
            each.worker.work()
        clock.forward(20)
    assert told == ["dynpin: 1 new group"]


def test_a_worker_that_died_is_followed_by_another_within_a_minute(build: Build, clock: Clock) -> None:
    killed, other = build(), build()
    killed.worker.work()
    receive(other, report())
    other.worker.work()
    assert groups(other)[0].verdict is None
    clock.forward(61)
    other.worker.work()
    assert groups(other)[0].verdict is not None


def test_a_worker_that_ends_leaves_its_work_to_others_at_once(build: Build) -> None:
    first, second = build(), build()
    first.worker.work()
    first.close()
    receive(second, report())
    second.worker.work()
    assert groups(second)[0].verdict is not None


def test_a_worker_goes_on_as_long_as_it_lives(build: Build, clock: Clock) -> None:
    first, second = build(), build()
    for _ in range(10):
        first.worker.work()
        receive(second, report(hostname=f"h{clock.now:.0f}.test"))
        second.worker.work()
        assert groups(second)[0].verdict is None
        first.worker.work()
        assert groups(second)[0].verdict is not None
        clock.forward(25)


def test_a_clock_that_stood_ahead_keeps_nobody_from_work(build: Build) -> None:
    ahead = build(clock=Clock(NOW + 3600))
    ahead.worker.work()
    second = build()
    receive(second, report())
    second.worker.work()
    assert groups(second)[0].verdict is not None


PROCESS = """
import sys
from dynpin.middleware.collector import Alerts, ServiceSettings
from dynpin.middleware.collector.service import Service
from dynpin.middleware.collector.worker import alerts

alerts._WAIT_S = 60

def send(subject, text):
    with open(sys.argv[2], "a") as file:
        file.write(subject + chr(10))

service = Service(sys.argv[1], ServiceSettings(tokens=["demo"], clock=lambda: float(sys.argv[3]), alerts=Alerts(send)))
print("ready", flush=True)
sys.stdin.readline()
service.worker.work()
print("done", flush=True)
sys.stdin.readline()
"""


def test_processes_tell_once(tmp_path: Path, build: Build) -> None:
    # They are judged before, so that the first alert has all groups.
    service = build()
    for name in ("a.test", "b.test", "c.test"):
        receive(service, report(hostname=name))
    service.worker.work()
    service.close()
    post = tmp_path / "post"
    command = [sys.executable, "-c", PROCESS, str(tmp_path / "reports.sqlite"), str(post), str(NOW)]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) for _ in range(3)
    ]
    for said in ("ready", "done"):
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline().strip() == said
            if said == "done":
                continue
        for process in started:
            assert process.stdin is not None
            process.stdin.write("go on\n")
    for process in started:
        process.communicate()
    assert post.read_text().splitlines() == ["dynpin: 3 new groups"]


# -- nobody waits -----------------------------------------------------------------------------------------------------


def test_a_group_that_is_not_judged_is_shown_as_such(site: Start) -> None:
    running = site()
    running.post(vector("real-chrome-yubico")["body"])
    (entry,) = running.client.get("/api/groups").json()["entries"]
    assert (entry["verdict"], entry["diagnosis"]) == (None, None)
    for page in ("/", "/groups", "/reports", f"/groups/{entry['group']}"):
        assert "Not judged yet" in running.client.get(page).text


@pytest.mark.skipif(sys.platform == "win32", reason="a process cannot be stopped there")
def test_a_report_that_takes_too_long_is_given_up_and_the_next_is_judged(build: Build) -> None:
    service = build()
    judge = service.worker.judge
    receive(service, report(hostname="a.test"))
    service.worker.work()
    assert judge.pid is not None
    os.kill(judge.pid, signal.SIGSTOP)  # it judges for ever
    judge.budget = 0.01
    receive(service, report(hostname="b.test"))
    service.worker.work()
    judge.budget = 60
    receive(service, report(hostname="c.test"))
    service.worker.work()
    said = {each.host: each for each in groups(service)}
    assert said["b.test"].verdict == "undecided"
    assert [host for host, each in said.items() if "more than 0.01 seconds" in str(each.diagnosis)] == ["b.test"]
    assert judge.starts == 2


def test_a_process_that_dies_over_a_report_is_followed_by_another(build: Build) -> None:
    service = build()
    receive(service, report(hostname="a.test"))
    service.worker.work()
    assert service.worker.judge.pid is not None
    os.kill(service.worker.judge.pid, signal.SIGKILL)
    receive(service, report(hostname="b.test"))
    service.worker.work()
    assert all(each.verdict for each in groups(service))


def test_one_process_judges_one_report_after_the_other(build: Build) -> None:
    service = build()
    for number in range(50):
        receive(service, report(hostname=f"h{number}.test"))
    service.worker.work()
    assert all(group.verdict for group in service.storage.groups(Filter(), limit=100).entries)
    assert service.worker.judge.starts == 1


def test_without_a_process_to_judge_a_group_waits_and_is_judged_later(
    build: Build, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, clock: Clock
) -> None:
    service = build()
    receive(service, report())
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/nonexistent/python")
        for _ in range(10):
            service.worker.work()
            clock.forward(1)
    told = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(told) == 1
    assert "/nonexistent/python cannot be started" in told[0].getMessage()
    assert groups(service)[0].verdict is None
    service.worker.work()
    assert groups(service)[0].verdict is not None


def test_a_collector_that_ends_does_not_wait_for_a_verdict(build: Build) -> None:
    service = build()
    service.worker.judge.close()
    receive(service, report())
    service.worker.work()
    assert groups(service)[0].verdict is None


KILLED = PROCESS.replace("file.write(subject + chr(10))", "file.write(subject + chr(10))\n    os._exit(9)").replace(
    "import sys", "import os, sys"
)


def test_an_alert_is_told_again_where_the_worker_was_killed_before_it_said_so(tmp_path: Path, build: Build) -> None:
    """At least once: the next one tells it once the lease of the first has ended."""
    service = build()
    receive(service, report(hostname="a.test"))
    service.worker.work()
    service.close()
    post = tmp_path / "post"
    for script, now in ((KILLED, NOW), (PROCESS, NOW + 30), (PROCESS, NOW + 61), (PROCESS, NOW + 122)):
        command = [sys.executable, "-c", script, str(tmp_path / "reports.sqlite"), str(post), str(now)]
        subprocess.run(command, input="go on\n\n", text=True, check=False, capture_output=True, timeout=120)
        if now == NOW + 30:
            assert post.read_text().splitlines() == ["dynpin: 1 new group"], "the lease of the killed one still holds"
    assert post.read_text().splitlines() == ["dynpin: 1 new group"] * 2
