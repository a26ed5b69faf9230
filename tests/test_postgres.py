"""The PostgreSQL server of the tests does what the tests that stand on it believe."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psycopg
import pytest

from tests.environments import ROOT
from tests.postgres import ROLE, Cluster, pair, running


def test_a_database_is_the_programs_own_and_gone_afterwards(cluster: Cluster) -> None:
    with cluster.database() as dsn, psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT current_user").fetchone() == (ROLE,)
        connection.execute("CREATE TABLE reports (id bigint)")
        (rights,) = connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchall()
        assert rights == (False,)
        name = connection.info.dbname
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(cluster.dsn(name))
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(cluster.dsn("postgres").replace(cluster.password, "wrong"))


def test_a_template_is_made_once(cluster: Cluster) -> None:
    made: list[str] = []

    def prepare(dsn: str) -> None:
        made.append(dsn)
        with psycopg.connect(dsn) as connection:
            connection.execute("CREATE TABLE reports AS SELECT 7 AS id")

    for _ in range(2):
        with cluster.database(cluster.template("seven", prepare)) as dsn, psycopg.connect(dsn) as connection:
            assert connection.execute("SELECT id FROM reports").fetchall() == [(7,)]
            connection.execute("DROP TABLE reports")
    assert len(made) == 1


def test_it_sorts_as_people_do(cluster: Cluster) -> None:
    """A query that needs the order of bytes says so: a server that somebody has does not sort by them."""
    with cluster.admin() as connection:
        assert connection.execute("SELECT 'a' < 'B', 'a' < 'B' COLLATE \"C\"").fetchone() == (True, False)


def test_kill_stop_and_freeze() -> None:
    with running() as cluster, cluster.database() as dsn:
        with psycopg.connect(dsn) as connection:
            connection.execute("CREATE TABLE reports AS SELECT 7 AS id")
        for end in (cluster.kill, cluster.stop):
            held = psycopg.connect(dsn)
            end()
            with pytest.raises(psycopg.OperationalError):
                held.execute("SELECT 1")
            held.close()
            with pytest.raises(psycopg.OperationalError, match="refused"):
                psycopg.connect(dsn)
            cluster.start()
            with psycopg.connect(dsn) as connection:
                assert connection.execute("SELECT id FROM reports").fetchall() == [(7,)]
        with cluster.frozen(), pytest.raises(psycopg.errors.ConnectionTimeout):
            psycopg.connect(dsn, connect_timeout=2)
        psycopg.connect(dsn).close()


def test_a_pair_loses_nothing_that_was_committed() -> None:
    with pair() as (primary, standby), primary.database() as dsn:
        name = dsn.rpartition("/")[2]
        both = primary.dsn(name, standby, target_session_attrs="read-write", connect_timeout="5")
        with psycopg.connect(both, autocommit=True) as connection:
            # The standby has the database too, not only the log of how it was made.
            connection.execute("SET synchronous_commit = remote_apply")
            connection.execute("CREATE TABLE reports (id bigint)")
            for number in range(50):
                connection.execute("INSERT INTO reports VALUES (%s)", [number])
            assert connection.info.port == primary.port
        primary.kill()
        with pytest.raises(psycopg.OperationalError, match="read-only"):
            psycopg.connect(both)
        standby.promote()
        with psycopg.connect(both, autocommit=True) as connection:
            assert connection.execute("SELECT count(*) FROM reports").fetchone() == (50,)
            connection.execute("INSERT INTO reports VALUES (50)")
        primary.follow(standby)
        standby.kill()
        primary.promote()
        with psycopg.connect(both) as connection:
            assert connection.execute("SELECT count(*) FROM reports").fetchone() == (51,)


def test_a_cancelled_wait_for_the_standby_succeeds_with_a_warning() -> None:
    """What the storage must not take for a commit. No timeout of the server's own bounds that wait."""
    with pair() as (primary, standby), primary.database() as dsn:
        with psycopg.connect(dsn, autocommit=True) as connection, primary.admin() as admin:
            connection.execute("CREATE TABLE reports (id bigint)")
            warned: list[str | None] = []
            connection.add_notice_handler(lambda notice: warned.append(notice.sqlstate))
            standby.stop()
            writing = threading.Thread(target=connection.execute, args=["INSERT INTO reports VALUES (1)"])
            writing.start()
            waits = "SELECT wait_event FROM pg_stat_activity WHERE pid = %s"
            while admin.execute(waits, [connection.info.backend_pid]).fetchone() != ("SyncRep",):
                pass
            assert writing.is_alive()
            connection.cancel_safe(timeout=60)
            writing.join()
            assert warned == ["01000"]
        standby.start()


# The whole of a process that starts a server, says which, and waits.
_HOLDER = """
from tests.postgres import running
with running() as cluster:
    print(cluster.pid, cluster.port, cluster.folder, flush=True)
    input()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
def test_it_ends_with_the_process_that_started_it(number: signal.Signals) -> None:
    with running():
        pass  # skipped where it is not installed
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert holder.stdout is not None
    pid, _, folder = holder.stdout.readline().split()
    watched = os.pidfd_open(int(pid))
    holder.send_signal(number)
    holder.communicate()
    # Readable when the server has ended.
    assert select.select([watched], [], [], 120)[0]
    os.close(watched)
    # What is killed leaves its folder behind, for the next one to remove.
    assert Path(folder).exists() is (number is signal.SIGKILL)
    with running():
        assert not Path(folder).exists()
