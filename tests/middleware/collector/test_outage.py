"""A 204 means committed in the file at the path; what cannot be stored is answered with 503, and heals by itself."""

from __future__ import annotations

import asyncio
import logging
import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from dynpin.errors import StoreError
from dynpin.middleware.collector import Limits, ServiceSettings, Token, open_storage
from dynpin.middleware.collector.intake import Answer
from dynpin.middleware.collector.outage import Outage
from dynpin.middleware.collector.service import Service
from dynpin.middleware.collector.web.health import Readiness
from tests.clock import Clock
from tests.middleware.collector.conftest import Site, Start, report
from tests.small_disk import fill, mounted

PAGES = ["/", "/groups", "/reports", "/api/groups", "/metrics", "/export/groups.json"]


def refused(running: Site) -> str:
    """A report is answered with 503 and told when to come again, and so is everything else; what the page says."""
    running.clock.forward(2)
    answer = running.post(report())
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "60")
    text = ""
    for path in PAGES:
        page = running.client.get(path)
        assert (page.status_code, page.headers["retry-after"]) == (503, "60"), path
        text = page.text
    assert running.client.get("/healthz").status_code == 200
    return text


def stored(running: Site) -> int:
    """How many reports there are, after one more was taken."""
    running.clock.forward(2)
    assert running.post(report()).status_code == 204
    return len(running.reports())


def aside(file: Path, folder: Path) -> None:
    """Move the file away, with its log and its index."""
    folder.mkdir()
    for one in file.parent.glob(f"{file.name}*"):
        one.rename(folder / one.name)


def test_a_file_that_was_moved_away_and_comes_back(site: Start, tmp_path: Path) -> None:
    running = site()
    assert stored(running) == 1
    aside(running.file, tmp_path / "elsewhere")
    assert "the file is gone" in refused(running)
    assert not running.file.exists(), "no empty file is made in its place"
    for one in (tmp_path / "elsewhere").iterdir():
        one.rename(tmp_path / one.name)
    assert stored(running) >= 2


def test_a_file_that_is_gone_without_its_log(site: Start, tmp_path: Path) -> None:
    """The log may hold reports that were acknowledged, so nobody is told to remove it, and nothing deletes it."""
    running = site()
    assert stored(running) == 1
    running.file.rename(tmp_path / "elsewhere")
    text = refused(running)
    assert "the file is gone; put it back" in text
    assert "the log of the old file" not in text
    with pytest.raises(StoreError, match=r"reports\.sqlite-wal is still there and may hold reports"):
        open_storage(running.file)
    assert not running.file.exists()
    (tmp_path / "elsewhere").rename(running.file)
    assert stored(running) >= 2


def test_a_file_that_was_removed(site: Start, tmp_path: Path) -> None:
    running = site()
    assert stored(running) == 1
    for one in tmp_path.glob("reports.sqlite*"):
        one.unlink()
    refused(running)
    assert list(tmp_path.glob("reports.sqlite*")) == []


def test_a_log_that_was_removed(site: Start) -> None:
    running = site()
    assert stored(running) == 1
    running.file.with_name("reports.sqlite-wal").unlink()
    running.clock.forward(2)
    first = running.post(report()).status_code
    after = [running.post(report()).status_code for _ in range(3)]
    with closing(sqlite3.connect(running.file)) as reader:
        (found,) = reader.execute("SELECT count(*) FROM reports").fetchone()
    assert after[-1] == 204
    assert found >= [first, *after].count(204), "what was acknowledged is in the file that others read"


def test_a_file_that_was_replaced_by_a_backup(site: Start, tmp_path: Path) -> None:
    running = site()
    assert stored(running) == 1
    backup = tmp_path / "backup.sqlite"
    other = open_storage(backup)
    other.add_token(Token("other"))
    other.close()
    aside(running.file, tmp_path / "old")
    shutil.copy(backup, running.file)
    assert stored(running) == 1, "the report went to the file that is at the path"
    assert running.post(report(), "/r/other/enforce").status_code == 204


def test_a_backup_beside_the_log_of_the_file_before(site: Start, tmp_path: Path) -> None:
    running = site()
    assert stored(running) == 1
    backup = tmp_path / "backup.sqlite"
    with closing(sqlite3.connect(running.file)) as source, closing(sqlite3.connect(backup)) as copy:
        source.backup(copy)
    for n in range(200):
        assert running.post(report(hostname=f"host-{n}.test")).status_code == 204
    backup.replace(running.file)
    assert "the log of the old file" in refused(running)
    with closing(sqlite3.connect(f"{running.file.as_uri()}?immutable=1", uri=True)) as copy:
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    for suffix in ("-wal", "-shm"):
        running.file.with_name(f"reports.sqlite{suffix}").unlink()
    assert stored(running) == 2, "of the copy and of now"
    with closing(sqlite3.connect(running.file)) as reader:
        assert reader.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    with mounted(tmp_path / "small", 1) as folder:
        yield folder


def test_a_full_disk(site: Start, small_disk: Path) -> None:
    running = site(file=small_disk / "reports.sqlite")
    assert stored(running) == 1
    filler = fill(small_disk)
    statuses = {running.post(report(hostname=f"host-{n}.test")).status_code for n in range(200)}
    assert 503 in statuses
    assert running.client.get("/healthz").status_code == 200
    while running.post(report(hostname="again.test")).status_code == 204:
        pass
    assert running.client.get("/readyz").status_code == 503, "it is what a report would meet"
    for path in PAGES:
        page = running.client.get(path)
        assert page.status_code in (200, 503), path
        if page.status_code == 503:
            assert "the disk is full" in page.text
    filler.unlink()
    running.clock.forward(2)
    assert running.post(report()).status_code == 204


def test_a_read_only_disk(site: Start, small_disk: Path) -> None:
    # A file system can be made read-only while nobody has a file open for writing: no worker here opens it in between.
    running = site(file=small_disk / "reports.sqlite", parts=["intake", "web"])
    assert stored(running) == 1
    running.app.service.storage.close()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert "is read-only" in refused(running)
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    assert stored(running) == 2


def test_a_start_on_a_read_only_disk_is_refused(small_disk: Path) -> None:
    storage = open_storage(small_disk / "reports.sqlite")
    storage.close()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(StoreError, match="is read-only"):
        open_storage(small_disk / "reports.sqlite")


def test_the_path_of_the_file_is_told_to_those_alone_who_may_read(site: Start, tmp_path: Path) -> None:
    running = site(open_access=False, password="right")
    signed_in = running.client.post("/sign-in", data={"password": "right"})
    assert signed_in.status_code == 303
    aside(running.file, tmp_path / "elsewhere")
    running.client.cookies.clear()
    for path in ("/sign-in", "/groups", "/api/groups", "/readyz"):
        assert str(running.file) not in running.client.get(path).text
    for path in ("/groups", "/api/groups"):
        # The storage is not needed to know them, also if this process has never read it.
        answer = running.client.get(path, auth=("", "right"))
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "60")
        assert str(running.file) in answer.text


# -- health -----------------------------------------------------------------------------------------------------------


def test_readiness_is_what_a_write_says(site: Start, tmp_path: Path) -> None:
    running, started = site(open_access=False), time.monotonic()
    assert running.client.get("/readyz").text == "ready\n"
    aside(running.file, tmp_path / "elsewhere")
    assert running.client.get("/healthz").text == "ok\n"
    # A second later; the probe before is shared until then.
    while (answer := running.client.get("/readyz")).status_code == 200:
        assert time.monotonic() - started < 60
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "60")
    assert str(running.file) not in answer.text


def test_those_who_ask_together_share_one_probe() -> None:
    probes: list[float] = []
    entered, release, seconds = threading.Event(), threading.Event(), [100.0]

    def probe(patience: float) -> None:
        probes.append(patience)
        entered.set()
        release.wait(30)
        if len(probes) > 1:
            raise StoreError("the disk is full")

    async def ask() -> None:
        readiness = Readiness(probe, monotonic=lambda: seconds[0])
        asked = [asyncio.create_task(readiness.fault()) for _ in range(200)]
        await asyncio.to_thread(entered.wait, 30)
        asked[0].cancel()
        release.set()
        await asyncio.wait(asked)
        assert asked[0].cancelled()
        assert {one.result() for one in asked[1:]} == {""}
        assert await readiness.fault() == ""
        assert len(probes) == 1
        seconds[0] += 1
        assert [await readiness.fault() for _ in range(3)] == ["the disk is full"] * 3
        assert len(probes) == 2

    asyncio.run(ask())


def test_a_line_each_ten_minutes(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    outage = Outage(clock)
    with caplog.at_level(logging.INFO, "dynpin.collector"):
        for _ in range(180):
            outage.failed(StoreError("the disk is full"), 2)
            for work in ("retention", "counts"):
                outage.waits(work, StoreError("the disk is full"))
            clock.forward(10)
        for work in ("retention", "counts"):
            outage.ended(work)
        outage.ended()
        outage.ended()
    assert [record.getMessage() for record in caplog.records] == [
        "nothing is stored: the disk is full; 2 reports were answered with 503 so far",
        "nothing is stored: the disk is full; 122 reports were answered with 503 so far",
        "nothing is stored: the disk is full; 242 reports were answered with 503 so far",
        "the report storage works again; 360 reports were answered with 503 in the meantime",
    ]


def test_a_fault_that_comes_and_goes_is_told_each_ten_minutes(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    outage = Outage(clock)
    for _ in range(61):
        outage.failed(StoreError("the disk is full"), 1)
        clock.forward(5)
        outage.ended()
        clock.forward(5)
    assert [record.getMessage().partition(";")[0] for record in caplog.records] == [
        "nothing is stored: the disk is full",
        "the report storage works again",
    ] * 2


def test_another_cause_is_told_too(caplog: pytest.LogCaptureFixture) -> None:
    outage = Outage(clock := Clock())
    for cause in ("the disk is full (free: 1,999 bytes)", "the disk is full (free: 7 bytes)", "no table", "no user"):
        outage.failed(StoreError(cause), 0)
        clock.forward(30)
    told = [record.getMessage().partition(": ")[2][:16] for record in caplog.records]
    assert told == ["the disk is full", "no table"]


def test_work_that_waits_is_told_once_and_then_the_first_report(caplog: pytest.LogCaptureFixture) -> None:
    outage = Outage(Clock())
    for _ in range(3):
        for work in ("verdicts", "retention"):
            outage.waits(work, StoreError("the disk is full"))
    outage.failed(StoreError("the disk is full"), 1)
    outage.waits("counts", StoreError("the disk is full"))
    for work in ("verdicts", "retention", "counts", "reports"):
        outage.ended(work)
    assert [record.getMessage() for record in caplog.records] == [
        "verdicts wait: the disk is full",
        "nothing is stored: the disk is full; 1 report was answered with 503 so far",
        "the report storage works again; 1 report was answered with 503 in the meantime",
    ]


def test_a_count_that_waits_is_no_report(caplog: pytest.LogCaptureFixture) -> None:
    outage = Outage(Clock())
    outage.failed(StoreError("the disk is full"), 0)
    outage.failed(StoreError("the disk is full"), 1)
    outage.ended()
    assert [record.getMessage() for record in caplog.records] == [
        "nothing is stored: the disk is full",
        "the report storage works again; 1 report was answered with 503 in the meantime",
    ]


def test_a_fault_that_comes_and_goes_loses_no_report_from_its_lines(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    outage = Outage(clock)
    for reports in (3, 7, 11):
        outage.failed(StoreError("the disk is full"), reports)
        clock.forward(5)
        outage.ended()
    clock.forward(600)
    outage.failed(StoreError("the disk is full"), 1)
    assert [record.getMessage() for record in caplog.records] == [
        "nothing is stored: the disk is full; 3 reports were answered with 503 so far",
        "the report storage works again; 3 reports were answered with 503 in the meantime",
        "nothing is stored: the disk is full; 19 reports were answered with 503 so far",
    ]


def test_reports_are_counted_where_the_tokens_cannot_be_read(site: Start, caplog: pytest.LogCaptureFixture) -> None:
    running = site()
    read_tokens = running.storage.tokens

    def failing() -> list[Token]:
        raise StoreError("the file is gone")

    running.storage.tokens = failing  # type: ignore[method-assign]
    running.clock.forward(2)
    assert [running.post(report()).status_code for _ in range(3)] == [503] * 3
    running.clock.forward(600)
    assert running.post(report()).status_code == 503
    running.storage.tokens = read_tokens  # type: ignore[method-assign]
    running.clock.forward(2)
    assert running.post(report()).status_code == 204
    assert [record.getMessage() for record in caplog.records if record.name == "dynpin.collector"] == [
        "nothing is stored: the file is gone; 1 report was answered with 503 so far",
        "nothing is stored: the file is gone; 4 reports were answered with 503 so far",
        "the report storage works again; 4 reports were answered with 503 in the meantime",
    ]


def test_too_many_that_wait_are_counted_each_ten_minutes(site: Start, caplog: pytest.LogCaptureFixture) -> None:
    running = site(limits=Limits(pending=1))
    several = [report(hostname=f"h{number}.test") for number in range(2)]
    for seconds in (0, 1, 1, 600):
        running.clock.forward(seconds)
        assert running.client.post("/r/demo/enforce", json=several).status_code == 503
        assert running.post(report()).status_code == 204
    assert [record.getMessage() for record in caplog.records if record.name == "dynpin.collector"] == [
        "too many reports wait for the disk; 2 reports were answered with 503 since the last line of this kind",
        "too many reports wait for the disk; 6 reports were answered with 503 since the last line of this kind",
    ]


def test_a_storage_that_does_not_answer_holds_up_its_own_requests_alone(site: Start) -> None:
    running = site()
    asked, release = threading.Event(), threading.Event()
    read_tokens = running.storage.tokens

    def hanging() -> list[Token]:
        asked.set()
        release.wait(60)
        return read_tokens()

    running.storage.tokens = hanging  # type: ignore[method-assign]
    running.clock.forward(2)
    statuses: list[int] = []
    waiting = [threading.Thread(target=lambda: statuses.append(running.post(report()).status_code)) for _ in range(5)]
    for thread in waiting:
        thread.start()
    assert asked.wait(60)
    assert running.client.get("/healthz", timeout=30).text == "ok\n"
    assert statuses == []
    release.set()
    for thread in waiting:
        thread.join()
    assert statuses == [204] * 5


def test_an_end_waits_for_no_disk_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("dynpin.middleware.collector.service._CLOSING_S", 0.2)
    storage = open_storage(tmp_path / "reports.sqlite")
    service = Service(storage, ServiceSettings(tokens=["demo"]), has_worker=False)
    assert isinstance(service.intake.admit("GET", "/r/demo/enforce"), Answer)  # a count that waits to be stored
    with storage.writing():
        service.close()
    assert f"{tmp_path / 'reports.sqlite'} does not answer" in caplog.text
