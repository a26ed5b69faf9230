"""The worker: verdicts, alerts, digests and retention, on its own thread, also when no report comes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import threading
from collections.abc import Callable, Mapping

from dynpin.errors import DynpinError, StoreError
from dynpin.pins import Pin

from ..fork import renew_after_fork
from ..outage import Outage, Repeated
from ..reserve import keep_reserve, with_reserve
from ..storage import HOUR, Group, Retention, Storage, Triaged
from ..triage import Diagnosis, Question, Settings
from .alerts import Alerts
from .clock_jump import PRUNED_AT, prune
from .judge import JudgeProcess
from .leases import Leases

__all__ = ["Worker"]

_log = logging.getLogger("dynpin.collector")
_LOOK_EVERY_S = 2.0
# How many groups are judged before their verdicts are stored together, and how often before other work gets its turn.
_TOGETHER, _BATCHES = 20, 10
# Raise this when the rules of triage change. Then all groups are judged again.
_RULES = b"6"


class Worker:
    """Gives verdicts to groups, sends alerts, and deletes old reports.

    Args:
        storage: the storage of the reports.
        flush: stores the counts that are not stored yet.
        outage: logs what the storage fails to do.
        keys: the operator's own keys, pin to name.
        inventories: the keys of single policies, by token; a policy with an inventory does not use `keys`.
        roots: the operator's own root certificates, PEM.
        retention: how much is kept; applied once an hour.
        alerts: the alerts on new groups and sudden rises.
        clock: seconds since the epoch, UTC.
    """

    def __init__(
        self,
        storage: Storage,
        flush: Callable[[], None],
        outage: Outage,
        *,
        keys: Mapping[Pin, str],
        inventories: Mapping[str, Mapping[Pin, str]],
        roots: bytes,
        retention: Retention,
        alerts: Alerts | None,
        clock: Callable[[], float],
    ) -> None:
        self._storage = storage
        self._flush = flush
        self._outage = outage
        self._retention = retention
        self._alerts = alerts
        self._clock = clock
        self._leases = Leases(storage, clock)
        known = _named(keys), {token: _named(own) for token, own in inventories.items()}
        self._judged_with = hashlib.sha256(_RULES + json.dumps(known, sort_keys=True).encode() + roots).hexdigest()[:16]
        self.judge = JudgeProcess(lambda: Settings(*known, roots.decode("ascii", "replace"), clock()))
        self._faults = Repeated()
        self.renew()
        renew_after_fork(self)

    def renew(self) -> None:
        """Start without a thread."""
        self._working = threading.Lock()
        self._called = threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._leases = Leases(self._storage, self._clock)
        self.judge.renew()

    def start(self) -> None:
        """Start to work, on a thread. Further calls do nothing."""
        if self._thread is not None:
            return
        with self._starting:
            if self._thread is None and not self._closing:
                self._thread = threading.Thread(target=self._run, name="dynpin-collector-worker", daemon=True)
                self._thread.start()

    def call(self) -> None:
        """Wake the thread, since a group waits for its verdict."""
        self._called.set()

    def close(self) -> None:
        """End the thread. Another worker judges the report that is being judged now."""
        self._closing = True
        self._called.set()
        self.judge.close()
        if self._thread is not None:
            # A channel of alerts may hang. Another worker sends its message again, so nothing is lost.
            self._thread.join(_LOOK_EVERY_S)
        with contextlib.suppress(StoreError):  # leases expire anyway
            self._leases.give_back()

    def work(self) -> bool:
        """Do all work that is due, once. True if groups still wait for their verdict."""
        with self._working:
            waits = self._do("verdicts", self._judge_waiting)
            if self._alerts is not None:
                self._do("alerts", self._tell)
            self._do("retention", self._prune)
        return waits

    def _run(self) -> None:
        while not self._closing:
            is_called = self._called.wait(_LOOK_EVERY_S)
            self._called.clear()
            if not is_called:
                self._try(
                    "counts", self._write_counts
                )  # a batch of reports stores them too, but there may be no reports
            while not self._closing and self.work():
                pass

    def _do(self, work: str, task: Callable[[], bool]) -> bool:
        def held() -> bool:
            return self._leases.holds(work) and task()

        return not self._closing and self._try(work, held)

    def _try(self, work: str, task: Callable[[], bool]) -> bool:
        """Do one kind of work. If it fails, log it, and go on."""
        try:
            waits = task()
        except StoreError as error:
            if not self._closing:
                self._outage.waits(work, error)
        except DynpinError as error:
            if not self._closing and self._faults.fails(work, self._clock()):
                _log.error("%s wait: %s", work, error)
        except Exception:  # noqa: BLE001 - one report or row that triggers a bug must not end all work
            if self._faults.fails(work, self._clock()):
                _log.exception("%s wait", work)
        else:
            self._outage.ended(work)
            if self._faults.ends(work):
                _log.warning("%s work again", work)
            return waits
        return False

    # -- the kinds of work --------------------------------------------------------------------------------------------

    def _write_counts(self) -> bool:
        self._flush()
        return False

    def _judge_waiting(self) -> bool:
        for _ in range(_BATCHES):
            waiting = self._storage.untriaged(_TOGETHER, self._judged_with)
            judged: list[tuple[Group, Triaged]] = []
            for group, body, received_at in waiting:
                # The names of CAs are stored with these verdicts, and may help to judge the next groups.
                shown_now = {pin: name for _, one in judged for pin, _, name in one.pins if name is not None}
                judged.append((group, self._judged(group, body, received_at, shown_now)))
            if judged:
                self._storage.set_verdicts(judged)
            if len(waiting) < _TOGETHER or self._closing:
                return False
        return True

    def _judged(self, group: Group, body: str, received_at: float, shown_now: Mapping[str, str]) -> Triaged:
        known = {pin: shown_now[pin] for pin in group.known_pins if pin in shown_now}
        before = Diagnosis.read(group.diagnosis)
        found = self.judge.ask(
            Question(
                body=body,
                host=group.host,
                port=group.port,
                noted_host=group.noted_host,
                mode=group.mode,
                token=group.token,
                received_at=received_at,
                seen={**known, **self._storage.authorities(group.known_pins)},
                root_before=None if before is None else before.root,
            )
        )
        return Triaged(
            found.verdict,
            found.severity,
            found.issuer,
            found.model_dump_json(),
            found.pins,
            self._judged_with,
        )

    def _tell(self) -> bool:
        if self._alerts is not None:
            self._alerts.tell(self._storage, self._clock())
        return False

    def _prune(self) -> bool:
        now, last = self._clock(), self._storage.fact(PRUNED_AT)
        if last is None or not 0 <= now - last < HOUR:
            if (file := self._storage.path) is None:
                _, jump = prune(self._storage, self._retention, now)
            else:
                _, jump = with_reserve(file, lambda: prune(self._storage, self._retention, now))
                keep_reserve(file)
            if jump is not None:
                # The clock of another worker may be right. It can then take this work over.
                self._leases.give_back()
        return False


def _named(keys: Mapping[Pin, str]) -> dict[str, str]:
    return {str(pin): name for pin, name in keys.items()}
