"""The storage on PostgreSQL: what it says of a server that is away, wrong or without its standby, and stores then."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import text
from starlette.testclient import TestClient

from dynpin.errors import StoreError
from dynpin.middleware.collector import collector
from dynpin.middleware.collector.storage import Counted, Filter, Retention, migrate_storage, open_storage, shown
from dynpin.middleware.collector.storage.postgresql import batch
from dynpin.middleware.collector.storage.postgresql.waiting import raw
from dynpin.middleware.collector.storage.sql import SQLStorage, decisions
from tests.clock import Clock
from tests.middleware.collector.conftest import NOW, report, running_site
from tests.postgres import Cluster, pair, running

from .conftest import arrival, ask, change

# How many of the collector's sessions wait for a lock.
WAITS = "SELECT count(*) FROM pg_stat_activity WHERE application_name ~ 'dynpin' AND wait_event_type = 'Lock'"


@pytest.fixture
def address(cluster: Cluster) -> Iterator[str]:
    """A database with the collector's tables."""
    with cluster.database(cluster.template("collector", migrate_storage)) as address:
        yield address


@pytest.fixture
def storage(address: str) -> Iterator[SQLStorage]:
    storage = open_storage(address)
    yield storage
    storage.close()


def test_an_empty_database_is_told_what_to_do(cluster: Cluster) -> None:
    with cluster.database() as address:
        with pytest.raises(StoreError, match="has no tables yet; run  dynpin collect migrate  once"):
            open_storage(address)
        migrate_storage(address)
        open_storage(address).close()


def test_of_many_that_migrate_together_one_does(cluster: Cluster) -> None:
    with cluster.database() as address:
        raised: list[BaseException] = []

        def migrate() -> None:
            try:
                migrate_storage(address)
            except StoreError as error:
                raised.append(error)

        threads = [threading.Thread(target=migrate) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert raised == []
        open_storage(address).close()


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ("0000", "by an older dynpin .* dynpin collect migrate"),
        ("9999", "by a newer dynpin"),
        ("3f2a9c", "has the tables of another program .* name another database"),
    ],
)
def test_a_schema_of_another_version_is_told(storage: SQLStorage, address: str, found: str, told: str) -> None:
    storage.add([arrival()], {})
    change(storage, f"UPDATE alembic_version SET version_num = '{found}'")
    with pytest.raises(StoreError, match=told):
        open_storage(address)
    storage.close()  # as at the end of the server: another one may come back
    with pytest.raises(StoreError, match=told):
        storage.add([arrival()], {})
    if found > "0001":
        with pytest.raises(StoreError, match=told):
            migrate_storage(address)


def test_no_message_has_the_password(cluster: Cluster) -> None:
    secret = "p%40ssword-of-nobody"
    away = f"postgresql://u:{secret}@127.0.0.1:{cluster.port}/none"
    for wrong in (
        away,
        away.replace(str(cluster.port), "1"),
        f"postgresql://u:{secret}%zz@127.0.0.1/x",
        f"postgresql://u:{secret}@127.0.0.1/x?nosuch=1",
        cluster.dsn("none"),
    ):
        for attempt in (lambda address: open_storage(address).secret(), migrate_storage):
            with pytest.raises((StoreError, ValueError)) as caught:
                attempt(wrong)
            text = f"{caught.value} {shown(wrong)}"
            assert not any(part in text for part in (secret, "p@ssword", "of-nobody", cluster.password)), text
            assert "\n" not in text


def test_what_is_wrong_is_told_with_the_next_step(cluster: Cluster, storage: SQLStorage) -> None:
    with pytest.raises(StoreError, match=r'127\.0\.0\.1:\d+/none cannot be used: .*"none" does not exist; check'):
        open_storage(cluster.dsn("none"))
    with pytest.raises(StoreError, match=r"password authentication failed .* check"):
        open_storage(cluster.dsn("postgres").replace(cluster.password, "wrong"))
    with pytest.raises(StoreError, match=r"Connection refused.* check that the server runs"):
        open_storage("postgresql://dynpin@127.0.0.1:1/x").secret()
    change(storage, "ALTER TABLE samples RENAME TO elsewhere")
    with pytest.raises(StoreError, match="a table is missing; run  dynpin collect migrate"):
        storage.add([arrival()], {})
    change(storage, "ALTER TABLE elsewhere RENAME TO samples")
    storage.add([arrival()], {})
    assert len(storage.reports(Filter()).entries) == 1


def test_a_database_that_is_read_only_is_told_as_such(cluster: Cluster, storage: SQLStorage, address: str) -> None:
    storage.close()
    with cluster.admin() as admin:
        name = sql.Identifier(address.rpartition("/")[2])
        admin.execute(sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(name))
        with pytest.raises(StoreError, match="the server accepts no writes"):
            storage.add([arrival()], {})
        admin.execute(sql.SQL("ALTER DATABASE {} RESET default_transaction_read_only").format(name))
    storage.add([arrival()], {})


def test_a_lock_of_others_is_waited_for_within_bounds(storage: SQLStorage, address: str) -> None:
    with psycopg.connect(address) as other:
        other.execute("LOCK TABLE facts")
        with pytest.raises(StoreError, match="held a lock for too long"):
            storage.probe(0.05)
    storage.probe(5)


def test_the_nodes_of_a_site_have_one_time_whichever_collector_answers(address: str) -> None:
    """A collector whose clock is ahead would end the waits of a rotation too early."""
    for clock in (Clock(), Clock(NOW + 40 * 86_400)):
        storage = open_storage(address, clock=clock)
        app = collector(storage, open_access=True, parts=["web"], clock=storage.clock)
        answer = TestClient(app).get("/api/sites/a.test/state")
        assert abs(float(answer.headers["dynpin-time"]) - time.time()) < 86_400
        app.close()


def test_during_a_migration_nothing_is_read_or_stored(
    storage: SQLStorage, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dynpin.middleware.collector.storage.postgresql.engine._PING_S", 0.1)
    storage.add([arrival()], {})
    with psycopg.connect(address) as other:
        other.execute("SELECT pg_advisory_xact_lock(%s)", (int.from_bytes(b"dynpin", "big"),))
        for use in (storage.secret, lambda: storage.add([arrival()], {}), lambda: open_storage(address).secret()):
            with pytest.raises(StoreError, match="took too long; dynpin tries again"):
                use()
    assert len(storage.reports(Filter()).entries) == 1


def test_a_batch_that_is_sent_again_counts_once(storage: SQLStorage, address: str) -> None:
    """Nobody saw its commit: it may be stored, or not."""
    told = [arrival("a.test"), arrival("b.test")], {Counted(5, "t", "accepted", ""): 2}

    def send(number: bytes) -> None:
        with storage.writing() as unit:
            batch.add(raw(unit.db), *told, number, time.time())

    threads = [threading.Thread(target=send, args=[b"1" * 16]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    send(b"2" * 16)
    assert len(storage.reports(Filter()).entries) == 4
    assert storage.accepted(5) == {"t": 4}
    assert [storage.activity(Filter(), 0, 10**9)[0][2], ask(storage, "SELECT sum(reports) FROM agents")[0]] == [4, (4,)]
    later = open_storage(address, clock=lambda: time.time() + 2 * 86_400)
    later.prune(Retention())
    later.close()
    assert ask(storage, "SELECT count(*) FROM batches") == [(0,)]


def test_a_report_that_comes_while_its_group_is_pruned_is_kept(
    cluster: Cluster, storage: SQLStorage, address: str
) -> None:
    now = time.time()
    storage.add([arrival("a.test", now - 200 * 86_400)], {})
    pruning = open_storage(address)
    pruned = threading.Thread(target=pruning.prune, args=[Retention(days=90)])
    with storage.writing() as unit, cluster.admin() as admin:
        # The batch has written, and not committed yet, when the group is chosen for its age.
        batch.add(raw(unit.db), [arrival("a.test", now)], {}, b"1" * 16, now)
        pruned.start()
        while pruned.is_alive() and admin.execute(WAITS).fetchone() == (0,):
            pruned.join(0.01)
    pruned.join()
    pruning.close()
    assert [entry.received_at for entry in storage.reports(Filter()).entries] == [now]
    assert [entry.reports for entry in storage.groups(Filter()).entries] == [2]


def test_a_batch_adds_to_a_total_that_is_being_deleted(cluster: Cluster, storage: SQLStorage, address: str) -> None:
    """The group is muted, so that no open group is left, while a report of another open group comes."""
    storage.add([arrival("a.test")], {})
    adding = open_storage(address, clock=lambda: NOW)
    added = threading.Thread(target=adding.add, args=[[arrival("b.test")], {}])
    with storage.writing() as unit, cluster.admin() as admin:
        decisions.set_state(unit, arrival("a.test").cause.key, "muted")
        added.start()
        while added.is_alive() and admin.execute(WAITS).fetchone() == (0,):
            added.join(0.01)
    added.join()
    adding.close()
    assert ask(storage, "SELECT step, state, reports FROM totals ORDER BY 1, 2") == [
        (step, state, 1) for step in (1, 24) for state in ("muted", "open")
    ]


def test_connections_are_not_shared_across_a_fork(storage: SQLStorage) -> None:
    """Neither side ends the other's session, whichever ends first."""
    storage.add([arrival("parent.test")], {})
    (session,) = ask(storage, "SELECT pg_backend_pid()")
    child = os.fork()
    if child == 0:
        try:
            own = ask(storage, "SELECT pg_backend_pid()")
            storage.add([arrival("child.test")], {})
            storage.close()
            os._exit(0 if own != [session] else 3)
        finally:
            os._exit(4)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert ask(storage, "SELECT pg_backend_pid()") == [session]
    assert len(storage.groups(Filter()).entries) == 2


def test_sessions_that_the_server_ended_are_made_again(cluster: Cluster, storage: SQLStorage) -> None:
    storage.add([arrival()], {})
    with cluster.admin() as admin:
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name ~ 'dynpin'")
    storage.add([arrival()], {})
    with cluster.admin() as admin:
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name ~ 'dynpin'")
    assert len(storage.reports(Filter()).entries) == 2


def test_a_server_that_comes_back_is_used_again() -> None:
    with running() as own, own.database() as address:
        migrate_storage(address)
        storage = open_storage(address)
        storage.add([arrival()], {})
        own.stop()
        for attempt in (lambda: storage.add([arrival()], {}), lambda: storage.groups(Filter()), storage.secret):
            with pytest.raises(StoreError, match="check that the server runs"):
                attempt()
        own.start()
        storage.add([arrival()], {})
        assert len(storage.reports(Filter()).entries) == 2
        storage.close()


def test_a_collector_starts_while_the_server_is_away() -> None:
    with running() as own, own.database() as address:
        own.stop()
        with running_site(file=address) as site:

            def refused(why: str) -> None:
                site.clock.forward(2)
                answer = site.post(report())
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "60")
                assert why in site.client.get("/").text

            refused("Connection refused")
            assert site.client.get("/readyz").status_code == 503
            own.start()
            refused("has no tables yet")
            migrate_storage(address)
            site.clock.forward(2)
            assert site.post(report()).status_code == 204
            assert len(site.reports()) == 1


def test_a_server_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its kernel still acknowledges, so that no time-out of TCP's ends the wait."""
    monkeypatch.setattr("dynpin.middleware.collector.storage.postgresql.engine._PING_S", 0.1)
    monkeypatch.setattr("dynpin.middleware.collector.storage.postgresql.waiting._CANCEL_S", 0.1)
    with running() as own, own.database() as address:
        migrate_storage(address)
        storage = open_storage(f"{address}?connect_timeout=2")
        storage.add([arrival()], {})
        with own.frozen():
            # By a connection that is there, and by new ones.
            for attempt in (lambda: storage.add([arrival()], {}), storage.secret, lambda: storage.groups(Filter())):
                with pytest.raises(StoreError, match="timeout"):
                    attempt()
        storage.add([arrival()], {})
        # In the midst of a transaction.
        with (
            pytest.raises(StoreError, match="check that the server runs"),
            storage.engine.writing(0.1) as db,
            own.frozen(),
        ):
            db.execute(text("SELECT 1"))
        assert len(storage.reports(Filter()).entries) >= 2
        storage.close()


@pytest.fixture
def machines() -> Iterator[tuple[Cluster, Cluster]]:
    """A primary and its synchronous standby."""
    with pair() as machines:
        yield machines


def test_what_the_standby_has_not_is_not_acknowledged(
    machines: tuple[Cluster, Cluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    primary, standby = machines
    # So long a commit waits; nothing of the test does, but for that.
    monkeypatch.setattr("dynpin.middleware.collector.storage.postgresql.engine._COMMIT_S", 0.3)
    with ExitStack() as stack, primary.database() as address:
        name = address.rpartition("/")[2]
        both = primary.dsn(name, standby)
        migrate_storage(both)
        storage = open_storage(both)
        stack.callback(storage.close)
        storage.add([arrival("before.test")], {})
        standby.stop()
        with pytest.raises(StoreError, match=r"its standby does not answer.*synchronous_standby_names"):
            storage.add([arrival("alone.test")], {Counted(5, "t", "accepted", ""): 1})
        with pytest.raises(StoreError, match="its standby does not answer"):
            storage.probe(1)
        # An operator may choose: the option is PostgreSQL's own, in the address.
        alone = open_storage(f"{both}?options=-csynchronous_commit%3Dlocal")
        alone.add([arrival("by-choice.test")], {})
        alone.close()
        standby.start()
        storage.add([arrival("after.test")], {})
        # Killed, and the standby promoted: the addresses of both lead to it.
        primary.kill()
        standby.promote()
        storage.add([arrival("promoted.test")], {})
        hosts = {group.host for group in storage.groups(Filter()).entries}
        assert {"before.test", "after.test", "promoted.test"} <= hosts
        storage.close()
        primary.start()
