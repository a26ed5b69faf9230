"""The table of violation reports: its rows, and all SQL on them, inside the caller's transaction.

The rules for retries, for giving up and for the number of reports are here (RFC 7469 §2.1.4).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import sqlite3
from dataclasses import dataclass
from typing import Literal

from dynpin.counts import counted
from dynpin.report import FIRST_SECOND, LAST_SECOND, Report

from ..store import Select, registrable_domain

__all__ = [
    "Added",
    "Delivery",
    "QueuedReport",
    "all_reports",
    "claim",
    "drop_damaged",
    "full_since",
    "insert",
    "record_attempt",
    "waiting",
]

logger = logging.getLogger("dynpin.clientstore")

Added = Literal["queued", "repeated", "declined"]
State = Literal["pending", "sent", "given up"]

_HOUR = 3600.0
# The same report is queued once in this period, and attempts are counted over it. In seconds.
_REPEAT_AFTER = _RATE_WINDOW = _HOUR
# The wait doubles from the first value to the second. A report is given up at either of the other two.
_FIRST_BACKOFF, _LONGEST_BACKOFF = 60.0, 6 * _HOUR
_MAX_ATTEMPTS, _MAX_AGE = 20, 7 * 24 * _HOUR
# How long a claim lasts, in seconds: the process that made it may have died.
_LEASE = 300.0
# An attacker can send any number of chains, and the owner of a domain has any number of hosts. So if a share is full,
# the oldest report of the host or domain with the most reports is dropped. The newest of each host is sent first.
_MAX_PENDING, _MAX_PENDING_PER_HOST = 1_000, 20

# A server may send 100 kB of useless certificates. The validated chain counts, and is always kept.
_MAX_BODY = 65_536

_SELECT = (
    "SELECT id, host, noted_host, report_uri, body, created_at, attempts, next_attempt_at, sent_at, last_error"
    " FROM reports"
)
# Whether a row has what each field of a QueuedReport needs. The file may be damaged, and one row must stop no other.
_IS_SOUND = (
    "(typeof(host) = 'text' AND typeof(noted_host) = 'text' AND typeof(report_uri) = 'text' AND typeof(body) = 'text'"
    f" AND created_at BETWEEN {FIRST_SECOND} AND {LAST_SECOND} AND typeof(attempts) = 'integer' AND attempts >= 0"
    f" AND (next_attempt_at IS NULL OR next_attempt_at BETWEEN {FIRST_SECOND} AND {LAST_SECOND})"
    f" AND (sent_at IS NULL OR sent_at BETWEEN {FIRST_SECOND} AND {LAST_SECOND})"
    " AND typeof(last_error) IN ('text', 'null'))"
)


@dataclass(frozen=True, slots=True)
class QueuedReport:
    """A violation report in the queue. Times are seconds since the epoch, UTC.

    Attributes:
        id: its number in the store.
        host: the host that failed Pin Validation.
        noted_host: the Known Pinned Host whose entry applied.
        report_uri: where it is sent.
        body: the JSON that is posted (RFC 7469 §3); empty once it was sent or given up.
        created_at: when it was queued.
        attempts: how often it was tried.
        next_attempt_at: when it is tried next; None if it was sent or given up.
        sent_at: when it arrived, or None.
        last_error: why the last attempt failed, or None.
    """

    id: int
    host: str
    noted_host: str
    report_uri: str
    body: str
    created_at: float
    attempts: int
    next_attempt_at: float | None
    sent_at: float | None
    last_error: str | None

    @property
    def state(self) -> State:
        """Whether it waits, has arrived, or was given up."""
        if self.sent_at is not None:
            return "sent"
        return "given up" if self.next_attempt_at is None else "pending"


@dataclass(frozen=True, slots=True)
class Delivery:
    """The result of one attempt: ``"sent"``, ``"later"`` or ``"given up"``, and the reason."""

    report: QueuedReport
    outcome: Literal["sent", "later", "given up"]
    reason: str


def insert(connection: sqlite3.Connection, report: Report, report_uri: str, now: float) -> Added:
    """Queue a report, unless the same one was queued within the hour. If too many wait, older ones are dropped."""
    report = _cut(report)
    # Two reports are the same if they describe the same event, whatever their times (§2.1.4).
    members = report.to_dict() | {"date-time": None, "effective-expiration-date": None}
    fingerprint = hashlib.sha256(json.dumps([members, report_uri]).encode()).hexdigest()
    drop_damaged(connection)
    connection.execute("DELETE FROM reports WHERE next_attempt_at IS NULL AND created_at < ?", (now - _MAX_AGE,))
    for created_at, next_attempt_at in connection.execute(
        "SELECT created_at, next_attempt_at FROM reports WHERE fingerprint = ?", (fingerprint,)
    ).fetchall():
        if next_attempt_at is not None or 0 <= now - created_at < _REPEAT_AFTER:
            return "repeated"
        connection.execute("DELETE FROM reports WHERE fingerprint = ?", (fingerprint,))
    noted_host = report.noted_hostname or report.hostname
    connection.execute(
        "INSERT INTO reports (fingerprint, host, noted_host, domain, report_uri, body, created_at, attempts,"
        " next_attempt_at) VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?)",
        (
            *(fingerprint, report.hostname, noted_host, registrable_domain(noted_host), report_uri),
            *(report.to_json(), now, now),
        ),
    )
    _drop_what_is_too_much(connection, noted_host)
    return "queued"


def _drop_what_is_too_much(connection: sqlite3.Connection, noted_host: str) -> None:
    # The newest report of a host is never dropped because of the host's own share.
    connection.execute(
        "DELETE FROM reports WHERE id IN (SELECT id FROM reports WHERE next_attempt_at IS NOT NULL AND noted_host = ?"
        " ORDER BY id DESC LIMIT -1 OFFSET ?)",
        (noted_host, _MAX_PENDING_PER_HOST),
    )
    (pending,) = connection.execute("SELECT count(*) FROM reports WHERE next_attempt_at IS NOT NULL").fetchall()[0]
    if pending > _MAX_PENDING:
        connection.execute(
            "DELETE FROM reports WHERE id = (SELECT id FROM (SELECT id,"
            " count(*) OVER (PARTITION BY noted_host) AS of_host, count(*) OVER (PARTITION BY domain) AS of_domain"
            " FROM reports WHERE next_attempt_at IS NOT NULL) ORDER BY of_host DESC, of_domain DESC, id LIMIT 1)"
        )


def _cut(report: Report) -> Report:
    """The report, with the served chain cut to the limit of a body."""
    left = _MAX_BODY - len(dataclasses.replace(report, served_chain=()).to_json())
    for number, certificate in enumerate(report.served_chain):
        left -= len(json.dumps([certificate]))
        if left < 0:
            return dataclasses.replace(report, served_chain=report.served_chain[:number])
    return report


def all_reports(select: Select) -> list[QueuedReport]:
    """All reports, also those that were sent or given up, oldest first; without damaged rows."""
    return [QueuedReport(*row) for row in select(f"{_SELECT} WHERE {_IS_SOUND} ORDER BY id", ())]


def drop_damaged(connection: sqlite3.Connection) -> None:
    """Delete the rows that are no reports, and say so in the log."""
    damaged = connection.execute(f"DELETE FROM reports WHERE NOT {_IS_SOUND}").rowcount  # noqa: S608
    if damaged:
        logger.error("dropped %s from the queue: damaged in the store's file", counted(damaged, "report"))


def waiting(select: Select, until: float, now: float) -> list[tuple[int, float, str, str, str]]:
    """Id, next attempt, host, noted host and report-uri of each report that is due by then, in the order of sending.

    First come the domains with the fewest attempts within the last hour. Of one domain the newest report of each host
    comes first. So a flood delays nobody else, even if it goes on.
    """
    # Without the bodies: a thousand of them are a hundred megabytes.
    return select(
        "SELECT id, next_attempt_at, host, noted_host, report_uri FROM (SELECT *, row_number() OVER"  # noqa: S608
        " (PARTITION BY domain, turn ORDER BY id DESC) AS domain_turn FROM (SELECT *, row_number() OVER"
        f" (PARTITION BY noted_host ORDER BY id DESC) AS turn FROM reports WHERE {_IS_SOUND} AND (next_attempt_at <= ?"
        # A time further away than any wait was set by a wrong clock.
        " OR next_attempt_at > ?))) LEFT JOIN (SELECT domain, count(*) AS tried FROM attempts WHERE attempted_at > ?"
        " AND attempted_at <= ? GROUP BY domain) USING (domain) ORDER BY ifnull(tried, 0), turn, domain_turn, id DESC",
        (until, now + _LONGEST_BACKOFF, now - _RATE_WINDOW, now),
    )


def full_since(select: Select, now: float, most: int) -> float | None:
    """The time of the first attempt within the last hour, if there were `most` or more; else None."""
    ((count, first),) = select(
        "SELECT count(*), min(attempted_at) FROM attempts WHERE attempted_at > ? AND attempted_at <= ?",
        (now - _RATE_WINDOW, now),
    )
    if count < most:
        return None
    return now if first is None else float(first)  # no attempt, if none is allowed


def claim(connection: sqlite3.Connection, report_id: int, now: float) -> QueuedReport:
    """Take a report, so that no other process does while the lease lasts. Returns its state before that."""
    row = connection.execute(f"{_SELECT} WHERE id = ?", (report_id,)).fetchone()
    if row is None:
        raise sqlite3.DatabaseError("a report is not in its place")
    connection.execute(
        "UPDATE reports SET attempts = attempts + 1, next_attempt_at = ? WHERE id = ?", (now + _LEASE, report_id)
    )
    # Not in the report's own row: that may be tried again within the hour, or be deleted.
    connection.execute("DELETE FROM attempts WHERE attempted_at NOT BETWEEN ? AND ?", (now - _RATE_WINDOW, now))
    connection.execute("INSERT INTO attempts SELECT ?, domain FROM reports WHERE id = ?", (now, report_id))
    return QueuedReport(*row)


def record_attempt(connection: sqlite3.Connection, report: QueuedReport, failure: str | None, now: float) -> Delivery:
    """Store the result of an attempt on a claimed report; `failure` is None if the report was accepted."""
    attempts = report.attempts + 1
    next_attempt_at: float | None = None
    if failure is not None and attempts < _MAX_ATTEMPTS and now - report.created_at < _MAX_AGE:
        next_attempt_at = now + min(_FIRST_BACKOFF * 2.0 ** (attempts - 1), _LONGEST_BACKOFF)
    connection.execute(
        "UPDATE reports SET next_attempt_at = ?, sent_at = ?, last_error = ?,"
        # Reports that are done are kept for a week, without their bodies: at 60 an hour these would be gigabytes.
        " body = CASE WHEN ? IS NULL THEN '' ELSE body END WHERE id = ?",
        (next_attempt_at, now if failure is None else None, failure, next_attempt_at, report.id),
    )
    if failure is None:
        return Delivery(report, "sent", f"{report.report_uri} accepted it")
    return Delivery(report, "given up" if next_attempt_at is None else "later", failure)
