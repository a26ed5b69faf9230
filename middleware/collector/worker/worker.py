"""The worker: verdicts, alerts and retention, on a thread of their own."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Callable, Mapping

from dynpin.errors import DynpinError
from dynpin.pins import Pin
from dynpin.report import Report, certificate_pin

from ..fork import renew_after_fork
from ..storage import HOUR, Group, Retention, Storage, Triaged
from ..stored_json import kept_report
from ..triage import Case, Decoded, Roots, decode, diagnose, shown
from .alerts import Alerts

__all__ = ["Worker"]

_log = logging.getLogger("dynpin.collector")
_LOOK_EVERY_S = 10.0
# Raised where the rules of triage change: what was judged by others is judged anew.
_RULES = b"3"


class Worker:
    """Gives verdicts to groups, tells of what is new, and deletes what is old.

    Args:
        storage: where the reports are.
        flush: writes down what was counted and not yet stored.
        keys: the operator's own keys, pin to name.
        roots: the operator's own root certificates, PEM.
        retention: what is kept; looked after once an hour.
        alerts: whom to tell of new groups and sudden rises.
        clock: seconds since the epoch, UTC.
    """

    def __init__(
        self,
        storage: Storage,
        flush: Callable[[], None],
        *,
        keys: Mapping[Pin, str],
        roots: bytes,
        retention: Retention,
        alerts: Alerts | None,
        clock: Callable[[], float],
    ) -> None:
        self._storage = storage
        self._flush = flush
        self._keys = keys
        self._own_roots = roots
        self._retention = retention
        self._alerts = alerts
        self._clock = clock
        named = sorted((str(pin), name) for pin, name in keys.items())
        self._judged_with = hashlib.sha256(_RULES + json.dumps(named).encode() + roots).hexdigest()[:16]
        self._roots: Roots | None = None
        self._pruned_at = clock()
        self.renew()
        renew_after_fork(self)

    def renew(self) -> None:
        """Begin without a thread."""
        self._judging = threading.Lock()
        self._arrived = threading.Event()
        self._thread: threading.Thread | None = None
        self._closing = False

    def begin(self, is_new: bool) -> None:
        """Start the thread where there is none, and wake it where a group waits for its verdict."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="dynpin-collector-worker", daemon=True)
            self._thread.start()
        # More reports of known groups ask for nothing: the thread looks around by itself every few seconds.
        if is_new:
            self._arrived.set()

    def close(self) -> None:
        """End the thread."""
        self._closing = True
        self._arrived.set()
        if self._thread is not None:
            self._thread.join()

    def judge_waiting(self, limit: int = 20) -> int:
        """Give a verdict to groups that have none, or one of other keys and roots; returns to how many.

        The thread does so when a group is new, and every few seconds; the pages call it too, so that nobody reads a
        group before its verdict.
        """
        with self._judging:
            waiting = self._storage.untriaged(limit, self._judged_with)
            for group, body, received_at in waiting:
                self._storage.set_verdict(group, self._judge(group, body, received_at))
        return len(waiting)

    def _run(self) -> None:
        while not self._closing:
            is_called = self._arrived.wait(_LOOK_EVERY_S)
            self._arrived.clear()
            try:
                if not is_called:
                    self._flush()  # each batch takes along what was counted; without reports, nothing did
                while not self._closing and self.judge_waiting():
                    pass
                if self._alerts is not None:
                    self._alerts.tell(self._storage, self._clock())
                if self._clock() - self._pruned_at >= HOUR:
                    self._pruned_at = self._clock()
                    self._storage.prune(self._retention)
            except DynpinError as error:
                # The reports are safe; their verdicts come with the next batch.
                _log.error("triage waits: %s", error)
            except Exception:  # noqa: BLE001 - one report or row that brings out a fault must not end all verdicts
                _log.exception("triage waits")

    def _judge(self, group: Group, body: str, received_at: float) -> Triaged:
        # A body that was damaged in the file says no more than its group does.
        report = kept_report(body) or Report(
            group.host, group.port, group.noted_host or None, None, None, None, (), (), (), ("unreadable",)
        )
        before = shown(group.diagnosis)
        case = Case(
            report=report,
            received_at=received_at,
            mode=group.mode,
            roots=self._known_roots(),
            keys=self._keys,
            seen=self._seen(report),
            root_before=None if before is None else before["root"],
        )
        found = diagnose(case)
        served = [(str(one.pin), "served") for one in found.served if one.pin is not None]
        return Triaged(
            verdict=found.verdict.name,
            severity=found.verdict.severity,
            issuer=found.issuer,
            diagnosis=json.dumps(found.to_dict()),
            pins=tuple(served),
            judged_with=self._judged_with,
        )

    def _known_roots(self) -> Roots:
        if self._roots is None:
            self._roots = Roots(self._own_roots, as_of=self._clock())
        return self._roots

    def _seen(self, report: Report) -> dict[Pin, Decoded]:
        seen: dict[Pin, Decoded] = {}
        for pin in report.known_pins:
            earlier = kept_report(self._storage.sample_with(str(pin)))
            if earlier is not None:
                for pem in (*earlier.validated_chain, *earlier.served_chain):
                    if certificate_pin(pem) == pin:
                        seen[pin] = decode(pem)
                        break
        return seen
