"""What goes when its time is over, and what may not go with it."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from sqlalchemy import Engine, event

from dynpin.middleware.collector import Retention
from dynpin.middleware.collector.storage import (
    AuditEntry,
    ChannelNote,
    Counted,
    Filter,
    PendingAlert,
)
from dynpin.middleware.collector.storage.sql import SQLStorage
from tests.clock import Clock
from tests.middleware.collector.conftest import NOW

from ..conftest import arrival, ask, change
from .conftest import DAY, judge


def test_prune_by_age(storage: SQLStorage) -> None:
    storage.add([arrival("old.test", NOW - 10 * DAY), arrival("new.test")], {Counted(1, "t", "accepted", ""): 1})
    storage.add([], {Counted(2, "t", "accepted", ""): 1, Counted(int(NOW // 3600), "t", "accepted", ""): 3})
    judge(storage)
    storage.record(AuditEntry(NOW - 9 * DAY, "", "", "muted"))
    pruned = storage.prune(Retention(days=5))
    assert (pruned.reports, pruned.groups) == (1, 1)
    assert [group.host for group in storage.groups(Filter()).entries] == ["new.test"]
    rows = {"samples": 1, "rates": 1, "totals": 2, "outcomes": 2, "agents": 1, "diagnoses": 1, "audit": 0}
    for table, number in rows.items():
        assert ask(storage, f"SELECT count(*) FROM {table}") == [(number,)], table
    storage.prune(Retention(days=5))
    assert storage.outcomes(0) == [("accepted", "", 5)], "a counter never goes down"
    assert storage.outcomes(1) == [("accepted", "", 3)]


def test_each_channel_is_told_of_each_group(storage: SQLStorage) -> None:
    storage.keep_channels(["chat", "mail"])
    storage.add([arrival(name) for name in ("a.test", "b.test", "c.test", "d.test")], {})
    judge(storage)
    a, b, c, d = groups = storage.unannounced(9)
    storage.announce(
        ["chat", "mail"], [PendingAlert(a), PendingAlert(b), PendingAlert(c), PendingAlert(d, 20, 1.5)], NOW
    )
    assert storage.pending_alerts("mail", 9)[3] == PendingAlert(d, 20, 1.5)
    assert [each.group for each in storage.pending_alerts("mail", 3)] == groups[:3]
    sent = ChannelNote("chat", NOW, "dynpin: 2 new groups", None, None)
    storage.note_channel(sent, [a, b])
    storage.set_state(c.key, "muted")
    storage.set_state(d.key, "resolved")
    assert [each.group.id for each in storage.pending_alerts("chat", 9)] == [d.id]
    assert [each.group.id for each in storage.pending_alerts("mail", 9)] == [a.id, b.id, d.id]
    assert storage.channels() == [replace(sent, waiting=1), ChannelNote("mail", waiting=3)]
    storage.keep_channels(["mail"])
    assert storage.pending_alerts("chat", 9) == []
    assert [note.name for note in storage.channels()] == ["mail"]
    storage.clock.forward(100 * DAY)  # type: ignore[attr-defined]
    storage.prune(Retention(days=90))
    assert storage.channels() == [ChannelNote("mail")]
    storage.announce(["mail"], [PendingAlert(a)], NOW)
    assert storage.pending_alerts("mail", 9) == [], "it was pruned meanwhile"


def test_no_transaction_of_prune_is_without_bounds(storage: SQLStorage, clock: Clock) -> None:
    counts = {Counted(hour, f"t{token}", "accepted", ""): 2 for hour in range(100, 147) for token in range(100)}
    storage.add([], counts)
    change(
        storage,
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4700) "
        "INSERT INTO audit (at, who, source, action, subject) SELECT i, 'a', '', 'sign-in-failed', '' FROM n",
    )
    deleted: dict[str, list[int]] = {"outcomes": [], "audit": []}

    def counted(connection: object, cursor: Any, statement: str, *_: object) -> None:
        for table, rows in deleted.items():
            if statement.startswith(f"DELETE FROM {table} "):
                rows.append(cursor.rowcount)

    event.listen(Engine, "after_cursor_execute", counted)
    try:
        storage.prune(Retention(days=90))
    finally:
        event.remove(Engine, "after_cursor_execute", counted)
    assert deleted["audit"] == [2000, 2000, 700]
    assert len(deleted["outcomes"]) == 3
    assert storage.outcomes(0) == [("accepted", "", 9400)]
    assert ask(storage, "SELECT count(*) FROM outcomes WHERE hour > 0") == [(0,)]
    assert ask(storage, "SELECT count(*) FROM audit") == [(0,)]
    storage.prune(Retention(days=90))
    assert storage.outcomes(0) == [("accepted", "", 9400)]


def test_prune_by_size_deletes_the_oldest(storage: SQLStorage) -> None:
    chance = random.Random(7)
    for start in range(0, 5_000, 500):
        batch = [
            arrival(f"h{n % 500}.test", NOW + n, body=chance.randbytes(500).hex()) for n in range(start, start + 500)
        ]
        storage.add(batch, {})
    storage.prune(Retention(bytes=4_000_000))
    (left, oldest) = ask(storage, "SELECT count(*), min(received_at) FROM reports")[0]
    assert 500 <= left <= 4_000
    assert oldest == NOW + 5_000 - left
    assert 0 < storage.engine.bytes_used() <= min(4_000_000, storage.engine.bytes_at_most())
    storage.prune(Retention(bytes=1))
    assert storage.groups(Filter()).entries == []
    assert ask(storage, "SELECT count(*) FROM totals") == [(0,)]
