"""The table of violation reports: what one of them is, and every SQL statement on it, inside the caller's transaction.

When a report is tried again or given up, and how many there may be, is decided here (RFC 7469 §2.1.4).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sqlite3
from dataclasses import dataclass
from typing import Literal

from dynpin.clientstore.table import registrable_domain
from dynpin.report import Report

__all__ = [
    "Added",
    "Delivery",
    "QueuedReport",
    "claim",
    "full_since",
    "insert",
    "select",
    "settle",
    "waiting",
]

Added = Literal["queued", "repeated", "declined"]
State = Literal["pending", "sent", "given up"]

_HOUR = 3600.0
# The same report is queued once in this time, and the attempts of this time are counted.
_REPEAT_AFTER = _RATE_WINDOW = _HOUR
# The waiting time doubles from the first to the second, and a report is given up at either of the other two.
_FIRST_BACKOFF, _LONGEST_BACKOFF = 60.0, 6 * _HOUR
_MAX_ATTEMPTS, _MAX_AGE = 20, 7 * 24 * _HOUR
# How long a report that was claimed is left to whoever claimed it, who may have died.
_LEASE = 300.0
# One attacker can show any number of chains: he fills the share of the host that he attacks, and no other's. Who has
# a domain has any number of hosts, and fills the share of the domain alone.
_MAX_PENDING, _MAX_PENDING_PER_DOMAIN, _MAX_PENDING_PER_HOST = 1_000, 200, 50

# A server may send 100 kB of certificates that no chain needs. What counts is in the validated chain, which stays.
_MAX_BODY = 65_536

_SELECT = (
    "SELECT id, host, noted_host, report_uri, body, created_at, attempts, next_attempt_at, sent_at, last_error"
    " FROM reports"
)


@dataclass(frozen=True, slots=True)
class QueuedReport:
    """A violation report in the queue. Times are seconds since the epoch, UTC.

    Attributes:
        id: its number in the store.
        host: the host that failed Pin Validation.
        noted_host: the Known Pinned Host whose entry applied.
        report_uri: where it is to be sent.
        body: the JSON that is posted (RFC 7469 §3); empty once it was sent or given up.
        created_at: when it was queued.
        attempts: how often it was tried.
        next_attempt_at: when it is tried next; None where it was sent or given up.
        sent_at: when it arrived, or None.
        last_error: why the last attempt failed, or None.
    """

    id: int
    host: str
    noted_host: str | None
    report_uri: str
    body: str
    created_at: float
    attempts: int
    next_attempt_at: float | None
    sent_at: float | None
    last_error: str | None

    @property
    def state(self) -> State:
        """Whether it waits, has arrived, or is tried no more."""
        if self.sent_at is not None:
            return "sent"
        return "given up" if self.next_attempt_at is None else "pending"


@dataclass(frozen=True, slots=True)
class Delivery:
    """What came of one attempt: ``"sent"``, ``"later"`` or ``"given up"``, and why."""

    report: QueuedReport
    outcome: Literal["sent", "later", "given up"]
    reason: str


def insert(connection: sqlite3.Connection, report: Report, report_uri: str, now: float) -> Added:
    """Queue a report, unless the same one was queued within the hour, or too many wait."""
    report = _cut(report)
    # What is sent twice is counted once: what happened makes the difference, not when (§2.1.4).
    members = report.to_dict() | {"date-time": None, "effective-expiration-date": None}
    fingerprint = hashlib.sha256(json.dumps([members, report_uri]).encode()).hexdigest()
    connection.execute("DELETE FROM reports WHERE next_attempt_at IS NULL AND created_at < ?", (now - _MAX_AGE,))
    earlier = connection.execute(
        "SELECT created_at, next_attempt_at FROM reports WHERE fingerprint = ?", (fingerprint,)
    ).fetchone()
    if earlier is not None:
        if earlier[1] is not None or 0 <= now - earlier[0] < _REPEAT_AFTER:
            return "repeated"
        connection.execute("DELETE FROM reports WHERE fingerprint = ?", (fingerprint,))
    noted_host = report.noted_hostname or report.hostname
    within = "." + registrable_domain(noted_host)
    of_host, of_domain, in_all = connection.execute(
        "SELECT count(*) FILTER (WHERE coalesce(noted_host, host) = ?),"
        " count(*) FILTER (WHERE substr('.' || coalesce(noted_host, host), ?) = ?), count(*)"
        " FROM reports WHERE next_attempt_at IS NOT NULL",
        (noted_host, -len(within), within),
    ).fetchone()
    if of_host >= _MAX_PENDING_PER_HOST or of_domain >= _MAX_PENDING_PER_DOMAIN or in_all >= _MAX_PENDING:
        return "declined"
    connection.execute(
        "INSERT INTO reports (fingerprint, host, noted_host, report_uri, body, created_at, attempts, next_attempt_at)"
        " VALUES (?, ?, ?, ?, ?, ?, 0, ?)",
        (fingerprint, report.hostname, report.noted_hostname, report_uri, report.to_json(), now, now),
    )
    return "queued"


def _cut(report: Report) -> Report:
    """The report with no more of the served chain than a body may hold."""
    left = _MAX_BODY - len(dataclasses.replace(report, served_chain=()).to_json())
    for number, certificate in enumerate(report.served_chain):
        left -= len(json.dumps([certificate]))
        if left < 0:
            return dataclasses.replace(report, served_chain=report.served_chain[:number])
    return report


def select(connection: sqlite3.Connection) -> list[QueuedReport]:
    """Every report, the sent and the given up included, oldest first."""
    return [QueuedReport(*row) for row in connection.execute(f"{_SELECT} ORDER BY id")]


def waiting(connection: sqlite3.Connection, until: float) -> list[tuple[int, float, str, str | None, str]]:
    """Id, next attempt, host, noted host and report-uri of each report whose next attempt is due by then, in order."""
    # Not the bodies: a thousand of them are a hundred megabytes, read inside a transaction.
    return connection.execute(
        "SELECT id, next_attempt_at, host, noted_host, report_uri FROM reports WHERE next_attempt_at <= ?"
        " ORDER BY next_attempt_at, id",
        (until,),
    ).fetchall()


def full_since(connection: sqlite3.Connection, now: float, most: int) -> float | None:
    """Where `most` reports or more were tried within the hour: when the first of them was; else None."""
    count, first = connection.execute(
        "SELECT count(*), min(attempted_at) FROM reports WHERE attempted_at > ? AND attempted_at <= ?",
        (now - _RATE_WINDOW, now),
    ).fetchone()
    if count < most:
        return None
    return now if first is None else float(first)  # none at all, where none may be


def claim(connection: sqlite3.Connection, report_id: int, now: float) -> QueuedReport:
    """Take a report: nobody else does for as long as the lease lasts. What is returned is as it was before."""
    row = connection.execute(f"{_SELECT} WHERE id = ?", (report_id,)).fetchone()
    connection.execute(
        "UPDATE reports SET attempts = attempts + 1, attempted_at = ?, next_attempt_at = ? WHERE id = ?",
        (now, now + _LEASE, report_id),
    )
    return QueuedReport(*row)


def settle(connection: sqlite3.Connection, report: QueuedReport, failure: str | None, now: float) -> Delivery:
    """Keep what came of the attempt for which a report was claimed; `failure` is None where it was taken."""
    attempts = report.attempts + 1
    next_attempt_at: float | None = None
    if failure is not None and attempts < _MAX_ATTEMPTS and now - report.created_at < _MAX_AGE:
        next_attempt_at = now + min(_FIRST_BACKOFF * 2.0 ** (attempts - 1), _LONGEST_BACKOFF)
    connection.execute(
        "UPDATE reports SET next_attempt_at = ?, sent_at = ?, last_error = ?,"
        # What is done is kept for a week, to be counted and looked at; at 60 an hour the bodies would be gigabytes.
        " body = CASE WHEN ? IS NULL THEN '' ELSE body END WHERE id = ?",
        (next_attempt_at, now if failure is None else None, failure, next_attempt_at, report.id),
    )
    if failure is None:
        return Delivery(report, "sent", f"{report.report_uri} took it")
    return Delivery(report, "given up" if next_attempt_at is None else "later", failure)
