"""PostgreSQL on a full disk: a report that was acknowledged is there, the others get a 503, and it heals by itself."""

from __future__ import annotations

import random
import secrets
import time
from collections import Counter
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
from tests.postgres import running as running_server
from tests.small_disk import fill, mounted


@pytest.fixture
def disk() -> Iterator[Path]:
    """A file system of 40 MB that the server may use."""
    # Not in pytest's folder, which the server's user may not enter.
    with mounted(Path("/tmp") / f"dynpin-disk-{secrets.token_hex(4)}", 40) as folder:
        yield folder


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


def send(running: Site, number: int) -> int:
    """A report of a host of its own, which no server can make smaller; the status of the answer."""
    text = random.Random(number).randbytes(20_000).hex()
    answer = running.post(report(hostname=f"h{number}.test") | {"x": text})
    assert answer.status_code == 204 or (answer.status_code, answer.headers["retry-after"]) == (503, "60")
    return answer.status_code


def until_ready(running: Site) -> None:
    """Wait until health says that reports can be stored: all who ask within a second get one answer."""
    deadline = time.monotonic() + 60
    while running.client.get("/readyz").status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)


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
        until_ready(running)
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


def test_a_full_disk_under_the_log_of_changes(disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Without room in pg_wal PostgreSQL ends (PANIC), and cannot start again until a person has made room."""
    # The process that writes it in the background rests: the collector's own commit is what finds no room.
    with (
        running_server("--wal-segsize=1", f"--waldir={disk / 'pg_wal'}", wal_writer_delay="10s") as server,
        ExitStack() as stack,
    ):
        address = stack.enter_context(server.database(server.template("collector", migrate_storage)))
        running = stack.enter_context(running_site(file=address))
        ballast = fill(disk, leave=3 * 2**20)
        acknowledged: list[int] = []
        while send(running, len(acknowledged)) == 204:
            acknowledged.append(len(acknowledged))
        assert server.ended() == 1
        assert "PANIC:  could not write to file" in server.log
        assert [send(running, number) for number in range(1000, 1005)] == [503] * 5
        assert running.client.get("/healthz").status_code == 200
        assert running.client.get("/readyz").status_code == 503
        page = running.client.get("/groups")
        assert (page.status_code, page.headers["retry-after"]) == (503, "60")
        assert "check that the server runs" in page.text
        with pytest.raises(AssertionError, match="PostgreSQL does not start"):
            server.start()
        assert server.ended() == 1
        assert send(running, 1005) == 503
        # What a person has to do, and no more: nobody starts the collector again.
        ballast.unlink()
        server.start()
        acknowledged += [number for number in range(2000, 2020) if send(running, number) == 204]
        assert acknowledged[-20:] == list(range(2000, 2020))
        until_ready(running)
        assert running.client.get("/groups").status_code == 200
        storage = open_storage(address)
        stack.callback(storage.close)
        found = Counter(ask(storage, "SELECT host FROM groups JOIN reports ON groups.id = group_id"))
    assert [found[f"h{number}.test",] for number in acknowledged] == [1] * len(acknowledged)
    # What was answered with 503 may be there too: the server may end after the commit, and before it answers.
    assert set(found.values()) == {1}
    told = [record.getMessage() for record in caplog.records if record.name == "dynpin.collector"]
    assert len(told) == 2, "the clock stands"
    assert "the disk of the server's pg_wal is full" in told[0]
    assert "works again" in told[1]
