"""How long reports are kept, and how what is older leaves the SQLite storage without holding up the intake."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager

from dynpin.errors import StoreError

from ..interface import HOUR, Pruned, Retention

__all__ = ["prune"]

# So many rows are deleted at once: the intake never waits for longer than that takes.
_CHUNK = 2_000
_FEWEST = 10
_DAY = 86_400

Writing = Callable[[], AbstractContextManager[sqlite3.Connection]]


def prune(writing: Writing, retention: Retention, now: float) -> Pruned:
    """Delete what the retention does not keep, oldest first, in small transactions."""
    before = now - retention.days * _DAY
    reports = _delete_reports(writing, "received_at < ?", before)
    with writing() as db:
        groups = db.execute("DELETE FROM groups WHERE last_seen < ?", (before,)).rowcount
        for table in ("rates", "totals", "outcomes"):
            db.execute(f"DELETE FROM {table} WHERE hour < ?", (int(before // HOUR),))  # noqa: S608 - from the line above
    samples = _trim_samples(writing, retention.samples)
    while _bytes_used(writing) > retention.bytes:
        with writing() as db:
            oldest = db.execute("SELECT received_at FROM reports ORDER BY received_at LIMIT 1 OFFSET ?", (_CHUNK,))
            row = oldest.fetchone()
        dropped = _delete_reports(writing, "received_at < ?", now + _DAY if row is None else row["received_at"])
        reports += dropped
        if not dropped:
            break
        with writing() as db:
            groups += db.execute(
                "DELETE FROM groups WHERE NOT EXISTS (SELECT 1 FROM reports WHERE reports.group_id = groups.id)"
            ).rowcount
        _forget_texts(writing)
    _forget_texts(writing)
    with writing() as db:
        db.execute("DELETE FROM totals WHERE reports = 0")
        db.execute("DELETE FROM sessions WHERE expires_at < ?", (now,))
        db.execute("DELETE FROM audit WHERE at < ?", (before,))
    return Pruned(reports, groups, samples)


def _delete_reports(writing: Writing, condition: str, edge: float) -> int:
    total, chunk = 0, _CHUNK
    while True:
        try:
            with writing() as db:
                number = db.execute(
                    f"DELETE FROM reports WHERE id IN (SELECT id FROM reports WHERE {condition} LIMIT ?)",  # noqa: S608
                    (edge, chunk),
                ).rowcount
        except StoreError:
            # On a full disk a deletion must fit into the log that is there: fewer rows do.
            if chunk <= _FEWEST:
                raise
            chunk //= 8
            continue
        total += number
        if number < chunk:
            return total


def _trim_samples(writing: Writing, keep: int) -> int:
    with writing() as db:
        crowded = [row["id"] for row in db.execute("SELECT id FROM groups WHERE reports > ?", (keep,))]
    total = 0
    for group_id in crowded:
        with writing() as db:
            total += db.execute(
                "DELETE FROM samples WHERE report_id IN (SELECT id FROM reports WHERE group_id = ? "
                "ORDER BY received_at DESC LIMIT -1 OFFSET ?)",
                (group_id, keep),
            ).rowcount
    return total


def _forget_texts(writing: Writing) -> None:
    """Delete the texts that no body needs any more."""
    while True:
        with writing() as db:
            number = db.execute(
                "DELETE FROM texts WHERE id IN (SELECT id FROM texts "
                "WHERE NOT EXISTS (SELECT 1 FROM samples WHERE samples.text_id = texts.id) LIMIT ?)",
                (_CHUNK,),
            ).rowcount
        if number < _CHUNK:
            return


def _bytes_used(writing: Writing) -> int:
    with writing() as db:
        # Pages that deleted rows left are filled by the next reports.
        pages, free, size = (
            db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
    return int((pages - free) * size)
