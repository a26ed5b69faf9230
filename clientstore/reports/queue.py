"""The queue of violation reports: stored in the store's file, sent in the background (RFC 7469 §2.1.4, §3)."""

from __future__ import annotations

import atexit
import logging
import sqlite3
import ssl
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from dynpin.errors import InvalidHost, StoreError
from dynpin.hosts import canonical_host
from dynpin.report import Report

from ..background import Background, farewell
from ..store import PinStore, Select, registrable_domain, selecting, whole_number
from .table import (
    Added,
    Delivery,
    QueuedReport,
    all_reports,
    claim,
    drop_damaged,
    full_since,
    insert,
    record_attempt,
    waiting,
)

if TYPE_CHECKING:
    from .posting import Post

__all__ = ["Delivery", "QueuedReport", "ReportMode", "ReportQueue"]

logger = logging.getLogger("dynpin.clientstore")

ReportMode = Literal["all", "same-domain", "off"]
_HOUR = 3600.0
# How long a process waits at its end for the report that is being sent, in seconds.
_GRACE = 0.5
_LONGEST_TIMEOUT = 86_400


class ReportQueue(Background):
    """Violation reports of one store. A report is on the disk before the error is raised, and is sent until it arrives.

    The same report is queued at most once an hour. It is tried again after 1, 2, 4 … minutes and then every 6 hours,
    and given up after 20 attempts or 7 days. All processes that share the store make at most `max_per_hour` attempts an
    hour together. Reports go over enforced connections. These queue no reports of their own, so two hosts that report
    to each other make no loop. Redirects are not followed. A report is never sent to the host that it is about
    (§2.1.4).

    Args:
        store: keeps the reports, and the pins for the report-uri's own host.
        mode: ``"all"``; ``"same-domain"`` to report only to the pinned host's own registrable domain (§5); or
            ``"off"``.
        context: the enforced context. The connection to an https report-uri trusts its CA certificates, or the
            system's if there is no context or it has none. Its client certificate is never shown.
        background: True to send from a daemon thread, which starts when there is a report; False if you call
            :meth:`send`.
        timeout: seconds to wait for each step of the report-uri's host. All steps together take at most three times
            as long.
        max_per_hour: the most attempts an hour.

    Raises:
        ValueError: for another mode, or a number that means nothing.
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
        ended = "the background sending of reports ended; the next process sends what is queued"
        super().__init__(store, "dynpin-reports", ended)
        if mode not in ("all", "same-domain", "off"):  # a misspelt word must not mean the opposite
            raise ValueError(f'mode is "all", "same-domain" or "off", not {mode!r}')
        is_number = isinstance(timeout, int | float)  # pyright: ignore[reportUnnecessaryIsInstance]
        if not is_number or not 0 < timeout <= _LONGEST_TIMEOUT:
            raise ValueError(f"timeout is {timeout!r}, not a number of seconds above 0, a day at most")
        self.mode: ReportMode = mode
        self.context = context
        self.background = background
        self.timeout = timeout
        self.max_per_hour = whole_number(max_per_hour, "max_per_hour", 0, 2**31)

    # -- adding -------------------------------------------------------------------------------------------------

    def add(self, report: Report, report_uri: str) -> Added:
        """Store a report, on the disk before this returns. A background queue then starts to send it.

        Returns:
            ``"queued"``; ``"repeated"`` if the same report was queued within the hour; ``"declined"`` if it must never
            be sent, or if the queue is full.

        Raises:
            StoreError: if the file cannot be written.
        """
        refusal = self._refusal(report.hostname, report.noted_hostname or report.hostname, report_uri)
        if refusal is not None:
            logger.info("no report about %s is sent: %s", report.hostname, refusal)
            return "declined"
        return self.store.database.write(partial(self._insert, report, report_uri))

    def add_soon(self, report: Report, report_uri: str) -> None:
        """:meth:`add` for an event loop's thread: the report is written in the background, without waiting."""
        if self._refusal(report.hostname, report.noted_hostname or report.hostname, report_uri) is None:
            self.store.database.write_later(partial(self._insert, report, report_uri))

    def _insert(self, report: Report, report_uri: str, connection: sqlite3.Connection) -> Added:
        added = insert(connection, report, report_uri, self.store.clock())
        if added == "queued" and self.background:
            self._begin()  # the thread waits for this transaction
        return added

    def _refusal(self, host: str, noted_host: str, report_uri: str) -> str | None:
        """Why a report to this report-uri is never sent, or None."""
        if self.mode == "off":
            return "reports are switched off"
        try:
            parts = urlsplit(report_uri)
            target = canonical_host(parts.hostname or "")
        except (ValueError, InvalidHost):
            return f"its report-uri {report_uri[:200]!r} is not a URI with a host"
        if parts.scheme not in ("http", "https"):
            return f"its report-uri {report_uri[:200]!r} is neither http nor https"
        if target == host:
            return "its report-uri is the very host that fails Pin Validation"
        if self.mode == "same-domain" and registrable_domain(target) != registrable_domain(noted_host):
            return f"its report-uri {target} belongs to another registrable domain"
        return None

    # -- reading ------------------------------------------------------------------------------------------------

    def reports(self) -> list[QueuedReport]:
        """All reports in the queue, also those that were sent or given up, oldest first.

        Raises:
            StoreError: if the file cannot be read.
        """
        return all_reports(self.store.database.select)

    def pending(self) -> list[QueuedReport]:
        """The reports that wait to be sent, oldest first."""
        return [report for report in self.reports() if report.state == "pending"]

    def drop(self, report_id: int | None = None) -> int:
        """Delete one report, or all of them; returns the number of deleted reports.

        Raises:
            StoreError: if the file cannot be written.
        """
        where = "" if report_id is None else " WHERE id = ?"
        parameters = () if report_id is None else (report_id,)
        return self.store.database.write(
            lambda connection: connection.execute(f"DELETE FROM reports{where}", parameters).rowcount  # noqa: S608
        )

    # -- sending ------------------------------------------------------------------------------------------------

    def send(self, *, early: bool = False) -> list[Delivery]:
        """Send the reports that are due, now and in this thread. Returns the result of each.

        Args:
            early: send the reports that are not due yet as well.

        Raises:
            StoreError: if the file cannot be read or written.
        """
        deliveries: list[Delivery] = []
        tried: set[int] = set()
        post: Post | None = None
        while (report := self._claim(tried, early)) is not None:
            tried.add(report.id)
            if post is None:
                # Imported here: urllib.request takes longer than a handshake.
                from .posting import Post  # noqa: PLC0415

                post = Post(self.store, self.context, self.timeout)
            failure = post(report.report_uri, report.body)
            deliveries.append(self._record(report, failure))
        return deliveries

    def _claim(self, tried: set[int], early: bool) -> QueuedReport | None:
        """Take the next report for this process. No other process takes it while the lease lasts."""

        def job(connection: sqlite3.Connection) -> QueuedReport | None:
            now = self.store.clock()
            drop_damaged(connection)
            if full_since(selecting(connection), now, self.max_per_hour) is not None:
                return None
            until = float("inf") if early else now
            due = (id_ for id_, _ in self._sendable(selecting(connection), until) if id_ not in tried)
            report_id = next(due, None)
            return None if report_id is None else claim(connection, report_id, now)

        return self.store.database.write(job)

    def _record(self, report: QueuedReport, failure: str | None) -> Delivery:
        delivery = self.store.database.write(
            lambda connection: record_attempt(connection, report, failure, self.store.clock())
        )
        if failure is not None:
            logger.info("%s did not accept the report about %s: %s", report.report_uri, report.host, failure)
        return delivery

    def _next_attempt_at(self) -> float | None:
        """When there is work next, or None if nothing waits."""
        select = self.store.database.select
        due = min((at for _, at in self._sendable(select, float("inf"))), default=None)
        if due is None:
            return None
        full = full_since(select, self.store.clock(), self.max_per_hour)
        return due if full is None else max(due, full + _HOUR)

    def _sendable(self, select: Select, until: float) -> Iterator[tuple[int, float]]:
        """Id and time of each report that is due by then and may be sent, in the order of sending."""
        for report_id, next_attempt_at, host, noted_host, report_uri in waiting(select, until, self.store.clock()):
            if self._refusal(host, noted_host, report_uri) is None:
                yield report_id, next_attempt_at

    # -- the background -----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Send the queue from a daemon thread of this process. The thread ends when nothing waits any more."""
        # On the store's thread, where no signal handler runs: a lock left locked would hang a handshake.
        self.store.database.write_later(lambda _: self._begin())

    def resume(self) -> None:
        """Start to send what an earlier process left in the file, if there is anything and this queue is automatic."""
        if not self.background or self.mode == "off" or self.store.read_only:
            return
        try:
            waiting = self._next_attempt_at() is not None
        except StoreError as error:  # each handshake reports this, and refuses
            logger.warning("the queue of reports cannot be read: %s", error)
            return
        if waiting:
            self.start()

    def _step(self, store: PinStore) -> Callable[[], float | None]:
        queue = ReportQueue(
            store,
            mode=self.mode,
            context=self.context,
            background=False,
            timeout=self.timeout,
            max_per_hour=self.max_per_hour,
        )

        def step() -> float | None:
            queue.send()
            return queue._next_attempt_at()

        return step


@atexit.register
def _farewell() -> None:
    farewell(ReportQueue, _GRACE)
