"""`dynpin collect move`: everything arrives, once, whatever ends the copy on its way."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from dynpin.cli.app import app
from dynpin.errors import StoreError
from dynpin.middleware.collector.storage import (
    APIToken,
    AuditEntry,
    ChannelNote,
    Counted,
    Filter,
    PendingAlert,
    Token,
    Triaged,
    migrate_storage,
    open_storage,
)
from dynpin.middleware.collector.storage.sql import SQLStorage, move, schema
from tests.environments import ROOT
from tests.middleware.collector.conftest import NOW
from tests.middleware.collector.storage.conftest import arrival
from tests.postgres import Cluster

NOT_COPIED = {"leases", "batches"}
Rows = dict[str, list[tuple[Any, ...]]]


def rows(storage: SQLStorage) -> Rows:
    """All there is, by table."""
    with storage.reading() as unit:
        return {
            table.name: sorted((tuple(row) for row in unit.db.execute(select(table))), key=repr)
            for table in schema.metadata.sorted_tables
            if table.name not in NOT_COPIED
        }


def fill(storage: SQLStorage) -> None:
    """Something in every table; names in which the order of people and that of bytes differ."""
    hosts = [
        "B.test",
        "a.test",
        "é.test",
        "_x.test",
        "a-b.test",
        "ab.test",
        *(f"h{number}.test" for number in range(30)),
    ]
    for number, host in enumerate(hosts):
        several = [arrival(host, NOW + number, user_agent=f"ua {host}", body=f'"{host}"') for _ in range(3)]
        storage.add(several, {Counted(500_000, "t", "accepted", ""): 3})
    for group in storage.groups(Filter(), limit=5).entries:
        pins = (("p" * 43 + "=", "leaf", None), (f"{group.id}", "root", f"CA {group.host}"))
        storage.set_verdicts([(group, Triaged("renewal", "fault", "CA", '{"long": "text"}', pins, "keys"))])
        storage.set_state(group.key, "muted", AuditEntry(NOW, "me", "192.0.2.0/24", "muted", group.key))
    storage.add_token(Token("shop", "Shop", ("shop.test",), NOW))
    storage.name_tokens(["demo"], NOW)
    storage.add_api_token(APIToken("ramp", "digest", ("read",), NOW, NOW + 9))
    storage.add_session("identity", "me", NOW + 9e9)
    storage.set_site_state("shop.test", '{"step": 3}', expected=0, by="ramp")
    storage.set_fact("digest", 7.5)
    storage.note_channel(ChannelNote("chat", NOW, "dynpin: 1 new group", NOW, NOW))
    storage.announce(["chat"], [PendingAlert(group) for group in storage.groups(Filter(), limit=3).entries], NOW)
    storage.claim("judge", "me")
    storage.secret()


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[SQLStorage]:
    storage = open_storage(tmp_path / "from.sqlite", clock=lambda: NOW)
    fill(storage)
    yield storage
    storage.close()


@pytest.fixture
def address(cluster: Cluster) -> Iterator[str]:
    """An empty storage on PostgreSQL."""
    with cluster.database(cluster.template("collector", migrate_storage)) as dsn:
        yield dsn


@pytest.fixture
def target(address: str) -> Iterator[SQLStorage]:
    storage = open_storage(address, clock=lambda: NOW)
    yield storage
    storage.close()


def test_into_postgresql_and_back(filled: SQLStorage, target: SQLStorage, tmp_path: Path) -> None:
    before = rows(filled)
    assert all(before.values()), "every table has something"
    shown: list[tuple[str, int, int]] = []
    counts = move(filled, target, lambda *at: shown.append(at))
    assert rows(target) == before
    assert counts["reports"] == len(before["reports"])
    numbers = [done for _, done, _ in shown]
    assert numbers == sorted(numbers)
    assert shown[-1][1] == shown[-1][2] == sum(counts.values())
    # What comes next has numbers of its own, and sessions go on.
    target.add([arrival("next.test")], {})
    target.record(AuditEntry(NOW, "me", "", "signed-in", ""))
    assert target.secret() == filled.secret()
    back = open_storage(tmp_path / "back.sqlite", clock=lambda: NOW)
    move(target, back)
    assert rows(back) == rows(target)
    back.add([arrival("next.test")], {})
    back.close()


class _EndedError(Exception):
    pass


def test_it_goes_on_wherever_it_ended(filled: SQLStorage, target: SQLStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[move.__module__], "_PIECE", 7)
    before, ends = rows(filled), 0
    while True:
        steps = 0

        def two_steps(_table: str, _done: int, _total: int) -> None:
            nonlocal steps
            steps += 1
            if steps > 3:
                raise _EndedError

        try:
            move(filled, target, two_steps)
        except _EndedError:
            ends += 1
        else:
            break
    assert ends > 20
    assert rows(target) == before


KILLED = """
import os, signal, sys
from dynpin.middleware.collector.storage import open_storage
from dynpin.middleware.collector.storage.sql import move
module = sys.modules[move.__module__]
module._PIECE = 7
def end(table, done, total):
    if table == "reports" and done > total / 2:
        os.kill(os.getpid(), signal.SIGKILL)
move(open_storage(sys.argv[1]), open_storage(sys.argv[2]), end)
"""


def test_a_killed_one_goes_on(filled: SQLStorage, address: str, tmp_path: Path) -> None:
    before = rows(filled)
    source = tmp_path / "from.sqlite"
    killed = subprocess.run([sys.executable, "-c", KILLED, source, address], check=False, cwd=ROOT, timeout=300)
    assert killed.returncode == -signal.SIGKILL
    done = CliRunner().invoke(app, ["collect", "move", str(source), address])
    assert done.exit_code == 0, done.output
    assert f"{len(before['reports'])}  reports" in done.output
    assert address.partition("@")[0].rpartition(":")[2] not in done.output, "the password"
    storage = open_storage(address)
    assert rows(storage) == before
    storage.close()


def test_a_target_that_has_something_is_refused(filled: SQLStorage, target: SQLStorage) -> None:
    target.add([arrival("other.test")], {})
    before = rows(target)
    with pytest.raises(StoreError, match="already has groups; name an empty storage"):
        move(filled, target)
    assert rows(target) == before


def test_a_storage_is_not_copied_into_itself_by_another_name(filled: SQLStorage, tmp_path: Path) -> None:
    link = tmp_path / "link.sqlite"
    link.symlink_to(filled.name)
    linked = open_storage(link)
    for same in (filled, linked):
        with pytest.raises(StoreError, match="itself"):
            move(filled, same)
    linked.close()


def _judge(storage: SQLStorage) -> None:
    """Give another verdict to one group, so that no table has more rows."""
    group, other = storage.groups(Filter()).entries[-1], Triaged("renewal", "fault", "CA", '{"x": 1}', (), "keys")
    storage.set_verdicts([(group, other)])


# All of these leave the number of rows as it is, except for the first.
CHANGES: dict[str, Callable[[SQLStorage], object]] = {
    "a report": lambda storage: storage.add([arrival("a.test")], {}),
    "a revoked token": lambda storage: storage.revoke_token("shop"),
    "a revoked token of the API": lambda storage: storage.revoke_api_token("ramp"),
    "a state": lambda storage: storage.set_state(storage.groups(Filter()).entries[-1].key, "resolved"),
    "a verdict": _judge,
    "a session for another": lambda storage: (
        storage.end_session("identity"),
        storage.add_session("other", "you", NOW + 9e9),
    ),
    "a state of a site": lambda storage: storage.set_site_state("shop.test", "{}", expected=1, by="ramp"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_source_that_has_changed_since_is_refused(
    filled: SQLStorage, target: SQLStorage, change: Callable[[SQLStorage], object]
) -> None:
    """Else a token that was revoked meanwhile would still be valid in the copy."""
    for state in ("resolved", "open"):  # so that each table has its rows
        filled.set_state(filled.groups(Filter()).entries[-1].key, state)

    def end(_table: str, done: int, total: int) -> None:
        if done > total * 0.9:
            raise _EndedError

    with pytest.raises(_EndedError):
        move(filled, target, end)
    change(filled)
    with pytest.raises(StoreError, match=r"somebody wrote to .* since this copy began"):
        move(filled, target)


def test_a_collector_on_the_target_is_found_out(filled: SQLStorage, target: SQLStorage) -> None:
    def disturb(table: str, _done: int, _total: int) -> None:
        if table == "samples":
            target.add_token(Token("intruder"))

    with pytest.raises(StoreError, match=r"somebody else"):
        move(filled, target, disturb)


def test_nobody_writes_to_the_source_meanwhile(filled: SQLStorage, target: SQLStorage, tmp_path: Path) -> None:
    move(filled, target)
    copy = open_storage(tmp_path / "copy.sqlite")
    other = open_storage(tmp_path / "from.sqlite")
    refused: list[str] = []

    def write(_table: str, _done: int, _total: int) -> None:
        if not refused:
            with pytest.raises(StoreError) as caught:
                other.probe(0.0)
            refused.append(str(caught.value))

    move(filled, copy, write)
    assert "another process has held the lock" in refused[0]
    copy.close()
    other.close()


def test_what_is_no_storage_is_said(tmp_path: Path) -> None:
    for arguments, message in (
        ((str(tmp_path / "none.sqlite"), str(tmp_path / "to.sqlite")), "there is no file"),
        (("mysql://a/b", str(tmp_path / "to.sqlite")), "dynpin has no storage for mysql://"),
    ):
        done = CliRunner().invoke(app, ["collect", "move", *arguments])
        assert done.exit_code == 2, done.output
        assert message in done.output
    assert not (tmp_path / "to.sqlite").exists()
