"""Deleting on a full disk: what makes room must need none."""

from __future__ import annotations

import contextlib
import itertools
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.testclient import TestClient

from dynpin.errors import StoreError
from dynpin.middleware.collector import Retention, ServiceSettings, collector, open_storage
from dynpin.middleware.collector.intake import understood
from dynpin.middleware.collector.reserve import keep_reserve, with_reserve
from dynpin.middleware.collector.service import Service
from dynpin.middleware.collector.storage import Arrival, Filter, Storage
from tests.clock import Clock
from tests.middleware.collector.conftest import NOW, report
from tests.middleware.collector.test_command import COMMAND, collecting, run
from tests.small_disk import fill, mounted


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MB."""
    with mounted(tmp_path / "small", 12) as folder:
        yield folder


LATER = NOW + 100 * 86_400


def add_reports(storage: Storage, start: int, number: int = 50, at: float = NOW) -> None:
    """Add reports, each of a group of its own and with a long body."""
    body = json.dumps(report() | {"x": "x" * 5000})
    told = [understood(report(hostname=f"h{start + n}.test"), "enforce") for n in range(number)]
    storage.add([Arrival(one.cause, one.flags, None, None, "t", "", "", at, body) for one in told], {})


def test_old_reports_are_deleted_on_a_disk_that_something_else_has_filled(small_disk: Path) -> None:
    storage = open_storage(small_disk / "r.sqlite", clock=lambda: LATER)
    for start in range(0, 500, 50):
        add_reports(storage, start)
    with storage.reading() as unit:
        unit.db.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)").all()
    fill(small_disk)
    assert storage.prune(Retention(days=90)).reports == 500
    assert storage.groups(Filter()).entries == []
    storage.close()


def test_the_log_itself_has_filled_the_disk(small_disk: Path) -> None:
    storage = open_storage(small_disk / "r.sqlite", clock=lambda: LATER)
    keep_reserve(Path(storage.name))
    with contextlib.suppress(StoreError):
        for start in itertools.count(step=50):
            add_reports(storage, start)
    fill(small_disk)
    assert with_reserve(Path(storage.name), lambda: storage.prune(Retention(days=90))).reports > 500
    add_reports(storage, 0, 5)
    assert len(storage.groups(Filter()).entries) == 5
    storage.close()


def test_the_collector_has_ended_and_its_log_is_gone(small_disk: Path) -> None:
    file = small_disk / "r.sqlite"
    storage = open_storage(file)
    keep_reserve(file)
    add_reports(storage, 0, at=0)
    storage.set_fact("pruned_at", time.time())  # the collector has run until now
    storage.close()
    fill(small_disk)
    typed = ["prune", "--storage", str(file), "--days", "90", "--json"]
    assert json.loads(run(*typed))["reports"] == 50
    assert not file.with_name("r.sqlite-reserve").exists(), "there was no other room"


def test_the_worker_keeps_a_reserve(small_disk: Path) -> None:
    clock = Clock()
    service = Service(small_disk / "r.sqlite", ServiceSettings(clock=clock), has_worker=False)
    service.worker.work()
    reserve = small_disk / "r.sqlite-reserve"
    assert reserve.stat().st_blocks * 512 > 2**20
    reserve.unlink()
    ballast = fill(small_disk)
    keep_reserve(Path(service.storage.name))
    assert not reserve.exists(), "an empty one would promise room that there is not"
    ballast.unlink()
    clock.forward(3601)
    service.worker.work()
    assert reserve.exists()
    service.close()


def test_a_first_page_needs_no_room(small_disk: Path) -> None:
    app = collector(small_disk / "r.sqlite", tokens=["t"], open_access=True)
    client = TestClient(app)
    assert client.post("/r/t/enforce", json=report()).status_code == 204
    fill(small_disk)
    for page in ("/groups", "/", "/set-up"):
        answer = client.get(page)
        assert answer.status_code == 200, answer.text
    app.close()


def test_without_a_reserve_the_cause_is_told(tmp_path: Path) -> None:
    def refuse() -> None:
        raise StoreError("the disk is full")

    with pytest.raises(StoreError, match="the disk is full"):
        with_reserve(tmp_path / "r.sqlite", refuse)


@pytest.mark.parametrize("is_new", [False, True], ids=["old file", "new file"])
def test_a_collector_that_starts_on_a_full_disk(small_disk: Path, is_new: bool) -> None:
    """It says why nothing is stored, answers with 503, and stores when there is room."""
    file = small_disk / "r.sqlite"
    if not is_new:
        open_storage(file).close()
    ballast = fill(small_disk)
    with (
        collecting(file, "--token", "demo", "--open-access") as (_, said),
        httpx.Client(base_url=said["pages"], trust_env=False, timeout=120) as client,
    ):
        (told,) = [line for line in said if line.startswith("dynpin: the report storage")]
        assert f"free on the file system at {small_disk}: 0 bytes" in told
        assert any("answers reports with 503 until it can store them" in line for line in said)
        for page in ("/groups", "/api/groups", "/readyz"):
            answer = client.get(page)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "60")
            assert page == "/readyz" or "the disk is full" in answer.text
        answer = client.post("/r/demo/enforce", json=report())
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "60")
        ballast.unlink()
        deadline = time.monotonic() + 60
        while client.post("/r/demo/enforce", json=report()).status_code != 204:
            assert time.monotonic() < deadline
        (group,) = client.get("/api/groups").raise_for_status().json()["entries"]
        assert group["reports"] == 1


def test_a_storage_that_is_removed_before_it_could_be_used_is_not_made_again(small_disk: Path) -> None:
    file = small_disk / "r.sqlite"
    ballast = fill(small_disk)
    storage = open_storage(file)
    file.unlink()
    ballast.unlink()
    with pytest.raises(StoreError, match="the file is gone"):
        add_reports(storage, 0)
    assert not file.exists()
    storage.close()


@pytest.mark.parametrize("verb", [["status"], ["tokens", "list"], ["tokens", "add"], ["prune"]], ids=" ".join)
def test_a_verb_on_a_full_disk_says_so(small_disk: Path, verb: list[str]) -> None:
    file = small_disk / "r.sqlite"
    open_storage(file).close()
    fill(small_disk)
    done = subprocess.run(
        [*COMMAND, *verb, "--storage", str(file)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode in (1, 2)
    assert f"free on the file system at {small_disk}: 0 bytes" in done.stderr + done.stdout
