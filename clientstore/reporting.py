"""The queue of violation reports: kept in the store's file, sent from the background (RFC 7469 §2.1.4, §3)."""

from __future__ import annotations

import atexit
import hashlib
import json
import logging
import os
import sqlite3
import ssl
import threading
import time
import weakref
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from dynpin.clientstore.schema import IN_MEMORY
from dynpin.clientstore.store import PinStore
from dynpin.clientstore.table import registrable_domain
from dynpin.errors import InvalidHost, StoreError
from dynpin.hosts import canonical_host
from dynpin.report import Report

if TYPE_CHECKING:
    from dynpin.clientstore.posting import Post

__all__ = ["Delivery", "QueuedReport", "ReportMode", "ReportQueue"]

logger = logging.getLogger("dynpin.clientstore")

ReportMode = Literal["all", "same-domain", "off"]
Added = Literal["queued", "repeated", "declined"]
State = Literal["pending", "sent", "given up"]

_HOUR = 3600.0
# The same report is queued once in this time, and so many reports are sent in it at most (§2.1.4).
_REPEAT_AFTER = _HOUR
_RATE_WINDOW = _HOUR
# The waiting time doubles from the first to the second, and a report is given up at either of the other two.
_FIRST_BACKOFF, _LONGEST_BACKOFF = 60.0, 6 * _HOUR
_MAX_ATTEMPTS, _MAX_AGE = 20, 7 * 24 * _HOUR
# How long a report that was claimed is left to whoever claimed it, who may have died.
_LEASE = 300.0
# One attacker can show any number of chains: he fills the share of the host that he attacks, and no other's.
_MAX_PENDING, _MAX_PENDING_PER_HOST = 1_000, 50
# How long a process that ends waits for the report that is on its way.
_GRACE = 5.0


@dataclass(frozen=True, slots=True)
class QueuedReport:
    """A violation report in the queue. Times are seconds since the epoch, UTC.

    Attributes:
        id: its number in the store.
        host: the host that failed Pin Validation.
        noted_host: the Known Pinned Host whose entry applied.
        report_uri: where it is to be sent.
        body: the JSON that is posted (RFC 7469 §3).
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


class ReportQueue:
    """Violation reports of one store: durable before the error is raised, sent until they arrive or are given up.

    A report is queued once an hour at most, tried again after 1, 2, 4 … minutes and then every 6 hours, and given up
    after 20 attempts or 7 days. At most `max_per_hour` attempts are made an hour, by all processes that share the
    store. Reports go over connections that are enforced themselves and queue no report of their own, so that two
    hosts which report to each other make no loop; redirects are not followed; a report is never sent to the host
    that it is about (§2.1.4).

    Args:
        store: keeps the reports, and the pins that hold for the report-uri's own host.
        mode: ``"all"``; ``"same-domain"`` to report only to the pinned host's own registrable domain (§5); or
            ``"off"``.
        context: the enforced context, whose CA certificates the connection to an https report-uri trusts. Without
            one, or where it holds none, the system's are trusted. Its client certificate is never shown.
        background: send from a daemon thread, which starts when there is something to send; else :meth:`send` does.
        timeout: seconds to wait for the report-uri's host.
        max_per_hour: how many attempts are made an hour.
    """

    def __init__(
        self,
        store: PinStore,
        *,
        mode: ReportMode = "all",
        context: ssl.SSLContext | None = None,
        background: bool = True,
        timeout: float = 10.0,
        max_per_hour: int = 60,
    ) -> None:
        self.store = store
        self.mode: ReportMode = mode
        self.context = context
        self.background = background
        self.timeout = timeout
        self.max_per_hour = max_per_hour
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._idle = threading.Event()
        self._thread: threading.Thread | None = None
        _queues.add(self)

    # -- taking in ----------------------------------------------------------------------------------------------

    def add(self, report: Report, report_uri: str) -> Added:
        """Keep a report, durably before this returns; a background queue begins to send it.

        Returns:
            ``"queued"``; ``"repeated"`` where the same one was queued within the hour; ``"declined"`` where it is
            never to be sent, or the queue is full.

        Raises:
            StoreError: where the file cannot be written.
        """
        refusal = self._refusal(report.hostname, report.noted_hostname, report_uri)
        if refusal is not None:
            logger.info("no report about %s is sent: %s", report.hostname, refusal)
            return "declined"
        now = self.store.clock()
        with self.store.writing() as connection:
            added = _insert(connection, report, report_uri, now)
        if added == "declined":
            logger.warning("a report about %s was dropped: the queue of reports is full", report.hostname)
        if added == "queued" and self.background:
            self.start()
        return added

    def _refusal(self, host: str, noted_host: str | None, report_uri: str) -> str | None:
        """Why a report is never sent there, or None."""
        if self.mode == "off":
            return "reports are switched off"
        try:
            parts = urlsplit(report_uri)
            target = canonical_host(parts.hostname or "")
        except (ValueError, InvalidHost):
            return f"its report-uri {report_uri[:200]!r} is no URI with a host"
        if parts.scheme not in ("http", "https"):
            return f"its report-uri {report_uri[:200]!r} is neither http nor https"
        if target == host:
            return "its report-uri is the very host that fails Pin Validation"
        if self.mode == "same-domain" and registrable_domain(target) != registrable_domain(noted_host or host):
            return f"its report-uri {target} belongs to another registrable domain"
        return None

    # -- looking ------------------------------------------------------------------------------------------------

    def reports(self) -> list[QueuedReport]:
        """Every report in the queue, the sent and the given up included, oldest first.

        Raises:
            StoreError: where the file cannot be read.
        """
        with self.store.reading() as connection:
            return [QueuedReport(*row) for row in connection.execute(f"{_SELECT} ORDER BY id")]

    def pending(self) -> list[QueuedReport]:
        """The reports that wait to be sent, oldest first."""
        return [report for report in self.reports() if report.state == "pending"]

    def drop(self, report_id: int | None = None) -> int:
        """Forget one report, or all of them; returns how many there were.

        Raises:
            StoreError: where the file cannot be written.
        """
        with self.store.writing() as connection:
            if report_id is None:
                return connection.execute("DELETE FROM reports").rowcount
            return connection.execute("DELETE FROM reports WHERE id = ?", (report_id,)).rowcount

    # -- sending ------------------------------------------------------------------------------------------------

    def send(self, *, early: bool = False) -> list[Delivery]:
        """Send the reports that are due, now and in this thread, and tell what came of each.

        Args:
            early: send those too whose next attempt is not due yet.

        Raises:
            StoreError: where the file cannot be read or written.
        """
        deliveries: list[Delivery] = []
        tried: set[int] = set()
        post: Post | None = None
        while (report := self._claim(tried, early)) is not None:
            tried.add(report.id)
            if post is None:
                # Imported when there is something to send: urllib.request takes longer than a handshake.
                from dynpin.clientstore.posting import Post  # noqa: PLC0415

                post = Post(self.store, self.context, self.timeout)
            failure = post(report.report_uri, report.body)
            deliveries.append(self._settle(report, failure))
        return deliveries

    def _claim(self, tried: set[int], early: bool) -> QueuedReport | None:
        """Take the next report for this process alone: others leave it for as long as the lease lasts."""
        now = self.store.clock()
        with self.store.writing() as connection:
            if _attempts(connection, now) >= self.max_per_hour:
                return None
            for row in connection.execute(
                f"{_SELECT} WHERE next_attempt_at <= ? ORDER BY next_attempt_at, id", (float("inf") if early else now,)
            ).fetchall():
                report = QueuedReport(*row)
                if report.id in tried or self._refusal(report.host, report.noted_host, report.report_uri) is not None:
                    continue
                connection.execute(
                    "UPDATE reports SET attempts = attempts + 1, attempted_at = ?, next_attempt_at = ? WHERE id = ?",
                    (now, now + _LEASE, report.id),
                )
                return report
        return None

    def _settle(self, report: QueuedReport, failure: str | None) -> Delivery:
        now = self.store.clock()
        attempts = report.attempts + 1
        next_attempt_at: float | None = None
        if failure is not None and attempts < _MAX_ATTEMPTS and now - report.created_at < _MAX_AGE:
            next_attempt_at = now + min(_FIRST_BACKOFF * 2.0 ** (attempts - 1), _LONGEST_BACKOFF)
        with self.store.writing() as connection:
            connection.execute(
                "UPDATE reports SET next_attempt_at = ?, sent_at = ?, last_error = ? WHERE id = ?",
                (next_attempt_at, now if failure is None else None, failure, report.id),
            )
        if failure is None:
            return Delivery(report, "sent", f"{report.report_uri} took it")
        logger.info("the report about %s was not taken by %s: %s", report.host, report.report_uri, failure)
        return Delivery(report, "given up" if next_attempt_at is None else "later", failure)

    def _next_attempt_at(self) -> float | None:
        """When there is something to do next, or None while nothing waits."""
        now = self.store.clock()
        with self.store.reading() as connection:
            due: float | None = None
            for row in connection.execute(f"{_SELECT} WHERE next_attempt_at IS NOT NULL ORDER BY next_attempt_at"):
                report = QueuedReport(*row)
                if self._refusal(report.host, report.noted_host, report.report_uri) is None:
                    due = report.next_attempt_at
                    break
            if due is not None and _attempts(connection, now) >= self.max_per_hour:
                (oldest,) = connection.execute(
                    "SELECT min(attempted_at) FROM reports WHERE attempted_at > ?", (now - _RATE_WINDOW,)
                ).fetchone()
                due = max(due, oldest + _RATE_WINDOW)
            return due

    # -- the background -----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Have a daemon thread of this process send what is in the queue; it ends when nothing waits any more."""
        with self._lock:
            self._wake.set()
            if self._thread is not None and self._thread.is_alive():
                return
            self._idle.clear()
            self._thread = threading.Thread(target=self._run, name="dynpin-reports", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # the interpreter is going down: the next process sends what is in the file
                self._thread = None
                self._idle.set()

    def resume(self) -> None:
        """Begin to send what an earlier process left in the file, if there is any and this queue works by itself."""
        try:
            waiting = self.background and self.mode != "off" and self._next_attempt_at() is not None
        except StoreError:  # each handshake will say so, and refuse
            logger.exception("the queue of reports cannot be read")
            return
        if waiting:
            self.start()

    def wait(self, timeout: float) -> bool:
        """Wait until the background has tried what is due; False where that takes longer than `timeout` seconds."""
        return self._thread is None or self._idle.wait(timeout)

    def _run(self) -> None:
        try:
            with self._own_store() as store:
                queue = ReportQueue(
                    store,
                    mode=self.mode,
                    context=self.context,
                    background=False,
                    timeout=self.timeout,
                    max_per_hour=self.max_per_hour,
                )
                while True:
                    self._wake.clear()
                    queue.send()
                    due = queue._next_attempt_at()
                    with self._lock:
                        if due is None and not self._wake.is_set():
                            self._thread = None
                            return
                        if not self._wake.is_set():
                            self._idle.set()
                    if due is not None:
                        self._wake.wait(min(max(due - store.clock(), 0.0), _HOUR))
                        self._idle.clear()
        except StoreError:
            logger.exception("the background sending of reports ended; what is queued is sent by the next process")
        finally:
            self._idle.set()

    @contextmanager
    def _own_store(self) -> Generator[PinStore]:
        # A connection of its own: a script closes its store as soon as the error leaves its `with`.
        if self.store.path == IN_MEMORY:
            yield self.store
            return
        with PinStore(self.store.path, clock=self.store.clock, on_clock_jump=self.store.on_clock_jump) as store:
            yield store

    def after_fork_in_child(self) -> None:
        """Leave the parent its thread; called by :func:`os.fork`."""
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._idle = threading.Event()
        self._thread = None


_SELECT = (
    "SELECT id, host, noted_host, report_uri, body, created_at, attempts, next_attempt_at, sent_at, last_error"
    " FROM reports"
)


def _insert(connection: sqlite3.Connection, report: Report, report_uri: str, now: float) -> Added:
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
    noted_host = report.noted_hostname
    of_host, in_all = connection.execute(
        "SELECT count(*) FILTER (WHERE noted_host IS ?), count(*) FROM reports WHERE next_attempt_at IS NOT NULL",
        (noted_host,),
    ).fetchone()
    if of_host >= _MAX_PENDING_PER_HOST or in_all >= _MAX_PENDING:
        return "declined"
    connection.execute(
        "INSERT INTO reports (fingerprint, host, noted_host, report_uri, body, created_at, attempts, next_attempt_at)"
        " VALUES (?, ?, ?, ?, ?, ?, 0, ?)",
        (fingerprint, report.hostname, noted_host, report_uri, report.to_json(), now, now),
    )
    return "queued"


def _attempts(connection: sqlite3.Connection, now: float) -> int:
    """How many reports were tried within the hour."""
    (count,) = connection.execute(
        "SELECT count(*) FROM reports WHERE attempted_at > ? AND attempted_at <= ?", (now - _RATE_WINDOW, now)
    ).fetchone()
    return int(count)


_queues: weakref.WeakSet[ReportQueue] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for queue in tuple(_queues):
        queue.after_fork_in_child()


def _farewell() -> None:
    """Give the report that is on its way a moment: a script that was refused ends at once."""
    end = time.monotonic() + _GRACE
    for queue in tuple(_queues):
        queue.wait(max(0.0, end - time.monotonic()))


os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_farewell)
