"""What both kinds of server share: the storage, the group commit, the tokens, the intake, and the triage after it."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from dynpin.errors import DynpinError
from dynpin.middleware.collector.alerts import Alerts
from dynpin.middleware.collector.certificates import Decoded, Roots, decode
from dynpin.middleware.collector.commit import GroupCommit
from dynpin.middleware.collector.fork import renew_after_fork
from dynpin.middleware.collector.intake import Intake
from dynpin.middleware.collector.limits import Ledger, Limits
from dynpin.middleware.collector.picture import shown
from dynpin.middleware.collector.reading import kept_report
from dynpin.middleware.collector.sqlite import SQLiteStorage
from dynpin.middleware.collector.storage import HOUR, Arrival, Group, Retention, Storage, Token, Triaged
from dynpin.middleware.collector.triage import Case, diagnose
from dynpin.pins import Pin
from dynpin.report import Report, certificate_pin

__all__ = ["Desk"]

_log = logging.getLogger("dynpin.collector")
_LOOK_EVERY_S = 10.0
# Raised where the rules of triage change: what was judged by others is judged anew.
_RULES = b"2"


class Desk:
    """The collector behind its doors.

    Args:
        storage: where reports are kept: the SQLite file, or another storage.
        tokens: tokens that hold as long as this process runs, beside those in the storage.
        limits: the bounds of the intake.
        keys: the operator's own keys, pin to name, for triage.
        roots: the operator's own root certificates, PEM, for triage.
        retention: what is kept; looked after once an hour.
        alerts: whom to tell of new groups and sudden rises.
        clock: seconds since the epoch, UTC.
        truncate_addresses: keep the /24 or /48 of a client, never its address.
    """

    def __init__(
        self,
        storage: str | os.PathLike[str] | Storage,
        *,
        tokens: Iterable[str | Token] = (),
        limits: Limits | None = None,
        keys: Mapping[Pin, str] | None = None,
        roots: bytes = b"",
        retention: Retention | None = None,
        alerts: Alerts | None = None,
        clock: Callable[[], float] = time.time,
        truncate_addresses: bool = True,
    ) -> None:
        self.storage: Storage = (
            SQLiteStorage(storage, clock=clock) if isinstance(storage, str | os.PathLike) else storage
        )
        self.clock = clock
        self.limits = limits or Limits()
        self.ledger = Ledger()
        self.keys = dict(keys or {})
        self._own_roots = roots
        named = sorted((str(pin), name) for pin, name in self.keys.items())
        self._judged_with = hashlib.sha256(_RULES + json.dumps(named).encode() + roots).hexdigest()[:16]
        self._retention = retention or Retention()
        self._pruned_at = clock()
        self._alerts = alerts
        self._roots: Roots | None = None
        given = [token if isinstance(token, Token) else Token(token) for token in tokens]
        self._given = {token.token: replace(token, created_at=token.created_at or clock()) for token in given}
        self._commit = GroupCommit(self._write, self.limits.pending)
        self.renew()
        renew_after_fork(self)
        self.intake = Intake(
            self._commit,
            self.ledger,
            self._usable_tokens,
            limits=self.limits,
            clock=clock,
            truncate_addresses=truncate_addresses,
        )

    def renew(self) -> None:
        """Begin without a thread."""
        self._writing = threading.Lock()
        self._triage = threading.Lock()
        self._arrived = threading.Event()
        self._worker: threading.Thread | None = None
        self._closing = False

    def tokens(self) -> list[Token]:
        """Every token, given here or stored; the revoked ones too."""
        return [*self._given.values(), *(token for token in self.storage.tokens() if token.token not in self._given)]

    def flush(self) -> None:
        """Write down what was counted and not yet stored."""
        self._write(())

    def settle(self, limit: int = 20) -> int:
        """Give a verdict to groups that have none, or one of other keys and roots; returns to how many.

        A thread does so when a group is new, and every few seconds; the pages call it too, so that nobody reads a
        group before its verdict.
        """
        with self._triage:
            waiting = self.storage.untriaged(limit, self._judged_with)
            for group, body, received_at in waiting:
                self.storage.set_verdict(group, self._judge(group, body, received_at))
        return len(waiting)

    def close(self) -> None:
        """Store what waits, and let go of the storage."""
        self._closing = True
        self._commit.close()
        self._arrived.set()
        if self._worker is not None:
            self._worker.join()
        self.flush()
        self.storage.close()

    # -- intake -------------------------------------------------------------------------------------------------

    def _usable_tokens(self) -> dict[str, Token]:
        return {token.token: token for token in self.tokens() if token.revoked_at is None}

    def _write(self, arrivals: Sequence[Arrival]) -> None:
        # One at a time: what another thread has taken from the ledger is written when this returns.
        with self._writing:
            counts = self.ledger.take()
            if not arrivals and not counts:
                return
            try:
                is_new = self.storage.add(arrivals, counts)
            except BaseException:
                self.ledger.give_back(counts)
                raise
        if arrivals:
            self._begin_triage(is_new)

    # -- triage -------------------------------------------------------------------------------------------------

    def _begin_triage(self, is_new: bool) -> None:
        if self._worker is None:
            self._worker = threading.Thread(target=self._triage_forever, name="dynpin-collector-triage", daemon=True)
            self._worker.start()
        # More reports of known groups ask for nothing: the thread looks around by itself every few seconds.
        if is_new:
            self._arrived.set()

    def _triage_forever(self) -> None:
        while not self._closing:
            is_called = self._arrived.wait(_LOOK_EVERY_S)
            self._arrived.clear()
            try:
                if not is_called:
                    self.flush()  # each batch takes along what was counted; without reports, nothing did
                while not self._closing and self.settle():
                    pass
                if self._alerts is not None:
                    self._alerts.tell(self.storage, self.clock())
                if self.clock() - self._pruned_at >= HOUR:
                    self._pruned_at = self.clock()
                    self.storage.prune(self._retention)
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
            keys=self.keys,
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
            self._roots = Roots(self._own_roots, as_of=self.clock())
        return self._roots

    def _seen(self, report: Report) -> dict[Pin, Decoded]:
        seen: dict[Pin, Decoded] = {}
        for pin in report.known_pins:
            earlier = kept_report(self.storage.sample_with(str(pin)))
            if earlier is not None:
                for pem in (*earlier.validated_chain, *earlier.served_chain):
                    if certificate_pin(pem) == pin:
                        seen[pin] = decode(pem)
                        break
        return seen
