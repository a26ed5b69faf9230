"""PostgreSQL on a full disk: a report that was acknowledged is there, the others get a 503, and it heals by itself."""

from __future__ import annotations

import os
import random
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from psycopg import sql

from dynpin.errors import StoreError
from dynpin.middleware.collector import open_storage
from dynpin.middleware.collector.storage import migrate_storage
from tests.middleware.collector.conftest import Site, report, running_site
from tests.middleware.collector.storage.conftest import ask
from tests.postgres import ROLE, Cluster


@pytest.fixture
def disk(cluster: Cluster) -> Iterator[Path]:
    """A file system of 40 MB that the server may use."""
    if os.geteuid():
        pytest.skip("only root may mount a small file system")
    # Not in pytest's folder, which the server's user may not enter.
    folder = Path(tempfile.mkdtemp(prefix="dynpin-disk-", dir="/tmp"))
    folder.chmod(0o755)
    command = ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(folder)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        folder.rmdir()
        pytest.skip("nothing can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
        folder.rmdir()


@pytest.fixture
def address(cluster: Cluster, disk: Path) -> Iterator[str]:
    """A database with the collector's tables on that disk. The server's own log of changes is elsewhere."""
    place = disk / "tables"
    place.mkdir(mode=0o700)
    cluster.own(place)
    template = cluster.template("collector", migrate_storage)
    with cluster.admin() as admin:
        admin.execute(sql.SQL("CREATE TABLESPACE small OWNER {} LOCATION {}").format(sql.Identifier(ROLE), str(place)))
    try:
        with cluster.database(template, "small") as address:
            yield address
    finally:
        with cluster.admin() as admin:
            admin.execute("DROP TABLESPACE small")


def fill(disk: Path) -> Path:
    """Leave no room on it."""
    other = disk / "other"
    with other.open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 65_536):
                pass
        except OSError:
            pass
    return other


def send(running: Site, number: int) -> int:
    """A report of a host of its own, which no server can make smaller; the status of the answer."""
    text = random.Random(number).randbytes(20_000).hex()
    answer = running.post(report(hostname=f"h{number}.test") | {"x": text})
    assert answer.status_code == 204 or (answer.status_code, answer.headers["retry-after"]) == (503, "60")
    return answer.status_code


def test_a_full_disk_of_the_server(disk: Path, address: str) -> None:
    with ExitStack() as stack:
        running = stack.enter_context(running_site(file=address))
        acknowledged = [number for number in range(3) if send(running, number) == 204]
        assert acknowledged == [0, 1, 2]
        assert running.client.get("/").status_code == 200
        other = fill(disk)
        for number in range(3, 500):
            if send(running, number) == 503:
                break
            acknowledged.append(number)
        assert len(acknowledged) < 490
        assert [send(running, number) for number in range(500, 505)] == [503] * 5
        assert running.client.get("/healthz").status_code == 200
        assert running.client.get("/readyz").status_code == 503
        page = running.client.get("/")
        assert page.status_code in (200, 503)
        assert "the disk of the server is full" in page.text
        # Others make room, and nobody starts anything again.
        other.unlink()
        acknowledged += [number for number in range(600, 605) if send(running, number) == 204]
        assert acknowledged[-5:] == [600, 601, 602, 603, 604]
        deadline = time.monotonic() + 60
        while running.client.get("/readyz").status_code != 200:  # all who ask within a second get one answer
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert "full" not in running.client.get("/").text
        storage = open_storage(address)
        stack.callback(storage.close)
        found = ask(storage, "SELECT host FROM groups JOIN reports ON groups.id = group_id ORDER BY reports.id")
    assert [host for (host,) in found] == [f"h{number}.test" for number in acknowledged]


def test_the_cause_is_told(disk: Path, address: str) -> None:
    storage = open_storage(address)
    fill(disk)
    with (
        pytest.raises(StoreError, match="the disk of the server is full; free some space on it"),
        storage.writing() as unit,
    ):
        unit.db.exec_driver_sql("INSERT INTO facts SELECT 'n' || n, n FROM generate_series(1, 100000) AS n")
    storage.close()
