"""The shared parts of a collector: the storage, the tokens, the intake with its group commit, and the worker."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections import Counter
from collections.abc import Mapping, Sequence

from dynpin.errors import StoreError
from dynpin.pins import Pin

from .fork import renew_after_fork
from .intake import GroupCommit, Intake, Ledger, truncated
from .outage import Outage
from .settings import ServiceSettings
from .storage import HOUR, Arrival, Storage, Token, open_storage
from .worker import Worker

__all__ = ["Service"]

_log = logging.getLogger("dynpin.collector")
_LOOK_EVERY_S = 2.0
# Seconds to close, less than a server allows. The intake has four of them, and the worker's thread two.
_CLOSING_S = 8.0


class Service:
    """The parts of one collector in one process.

    Args:
        storage: the path of the SQLite file, or another storage.
        settings: the settings.
        has_worker: also give verdicts, send alerts and delete old reports in this process.
    """

    def __init__(
        self,
        storage: str | os.PathLike[str] | Storage,
        settings: ServiceSettings,
        *,
        has_worker: bool = True,
    ) -> None:
        self.clock = settings.clock
        self.storage: Storage = (
            open_storage(storage, clock=self.clock) if isinstance(storage, str | os.PathLike) else storage
        )
        self.limits = settings.limits
        self.ledger = Ledger()
        self._settings = settings
        self._source_bits = settings.source_bits()
        self._own_tokens = settings.own_tokens()
        self.outage = Outage(self.clock)
        self._has_worker = has_worker
        self._commit = GroupCommit(self._write, self.limits.pending, self._look_at_others)
        self.worker = Worker(
            self.storage,
            self.flush,
            self.outage,
            keys=settings.keys,
            inventories=settings.inventories,
            roots=settings.roots,
            retention=settings.retention,
            alerts=settings.alerts,
            clock=settings.clock,
        )
        self.renew()
        renew_after_fork(self)
        self.intake = Intake(
            self._commit,
            self.ledger,
            self._usable_tokens,
            self.outage,
            limits=self.limits,
            clock=self.clock,
            source_address=self._source_bits,
        )

    def renew(self) -> None:
        """Start with a free lock."""
        self._writing = threading.Lock()
        # This hour's reports that this process stored, by token; and when it last looked at those of other processes.
        self._stored: tuple[int, Counter[str]] = (-1, Counter())
        self._looked_at = float("-inf")

    def begin(self) -> None:
        """Start the worker. Further calls do nothing."""
        # Not in __init__: a server may fork after that, and a child has no threads of its parent.
        if self._has_worker:
            self.worker.start()

    def tokens(self) -> list[Token]:
        """Every token, from the settings or the storage, even if it was revoked."""
        own = self._own_tokens
        return [*own.values(), *(token for token in self.storage.tokens() if token.token not in own)]

    def keys_of(self, token: str) -> Mapping[Pin, str]:
        """The operator's own keys for the policy of a token, pin to name."""
        return self._settings.inventories.get(token, self._settings.keys)

    def flush(self) -> None:
        """Store the counts that were not stored yet."""
        if self._write(()):
            self._look_at_others()

    def source_of(self, address: str | None) -> str:
        """The source that a client address belongs to, for limits and pauses."""
        return truncated(address, self._source_bits)

    def close(self) -> None:
        """Store what waits, and close the storage. This ends within seconds, even if the disk hangs."""
        # On a thread, since a wait for a disk that hangs, or for a lock that such a thread holds, cannot be stopped.
        closing = threading.Thread(target=self._close, name="dynpin-collector-close", daemon=True)
        closing.start()
        closing.join(_CLOSING_S)
        if closing.is_alive():
            _log.error("the report storage %s does not answer, and was not closed", self.storage.name)

    def _close(self) -> None:
        self._commit.close()
        self.worker.close()
        try:
            self.flush()
        except StoreError as error:
            # No report is lost: each one that was not stored got the answer 503. Only counts of answers are lost.
            _log.error("the last counts could not be stored: %s", error)
        self.storage.close()

    def _usable_tokens(self) -> dict[str, Token]:
        return {token.token: token for token in self.tokens() if token.revoked_at is None}

    def _write(self, arrivals: Sequence[Arrival]) -> bool:
        """Store reports together with the counts. True if there was anything to store."""
        if arrivals:
            self.begin()  # first: if this raises, these reports are not stored
        # One thread at a time: when this returns, the counts that another thread took are written too.
        with self._writing:
            counts = self.ledger.take()
            if not arrivals and not counts:
                return False
            try:
                is_new = self.storage.add(arrivals, counts)
            except BaseException as error:
                self.ledger.give_back(counts)
                if isinstance(error, StoreError):
                    self.outage.failed(error, len(arrivals))
                raise
            if arrivals:  # a full disk may have space for counts, and none for a report
                self.outage.ended()
            hour = int(self.clock() // HOUR)
            for counted, number in counts.items():
                if counted.hour == hour and counted.outcome == "accepted":
                    self._own(hour)[counted.token] += number
        if is_new:
            self.worker.call()
        return True

    def _own(self, hour: int) -> Counter[str]:
        """How many reports this process stored in this hour, by token."""
        if self._stored[0] != hour:
            self._stored = hour, Counter()
        return self._stored[1]

    def _look_at_others(self) -> None:
        """Read how many reports other processes accepted in this hour, since a token has one budget for all of them.

        No sender waits for this: it runs after the reports of a batch are answered.
        """
        now = self.clock()
        if 0 <= now - self._looked_at < _LOOK_EVERY_S:
            return
        # No write at the same time: it would count as a report of another process.
        with self._writing, contextlib.suppress(StoreError):  # the next look will see them
            self._looked_at, hour = now, int(now // HOUR)
            accepted, own = self.storage.accepted(hour), self._own(hour)
            self.intake.meter.learn(hour, {token: number - own[token] for token, number in accepted.items()})
