"""What all parts share: the storage, the tokens, the intake with its group commit, and the worker."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from dynpin.errors import StoreError
from dynpin.pins import Pin

from .fork import renew_after_fork
from .intake import SOURCE_ADDRESS, GroupCommit, Intake, Ledger, Limits, SourceAddress, is_token, truncated
from .outage import Outage
from .storage import Arrival, Retention, Storage, Token, open_storage
from .worker import Alerts, Worker

__all__ = ["Service"]

_log = logging.getLogger("dynpin.collector")


class Service:
    """The parts of one collector in one process, put together.

    Args:
        storage: where reports are kept: the SQLite file, or another storage.
        tokens: tokens that hold as long as this process runs, beside those in the storage.
        limits: the bounds of the intake.
        keys: the operator's own keys, pin to name, for triage.
        inventories: the operator's own keys of one policy each, by token, in place of `keys`.
        roots: the operator's own root certificates, PEM, for triage.
        retention: what is kept; looked after once an hour.
        alerts: whom to tell of new groups and sudden rises.
        clock: seconds since the epoch, UTC.
        source_address: how much of a client's address is kept, and counts as one source.
        has_worker: give verdicts, send alerts and delete what is old in this process too.
    """

    def __init__(
        self,
        storage: str | os.PathLike[str] | Storage,
        *,
        tokens: Iterable[str | Token] = (),
        limits: Limits | None = None,
        keys: Mapping[Pin, str] | None = None,
        inventories: Mapping[str, Mapping[Pin, str]] | None = None,
        roots: bytes = b"",
        retention: Retention | None = None,
        alerts: Alerts | None = None,
        clock: Callable[[], float] = time.time,
        source_address: SourceAddress = SOURCE_ADDRESS,
        has_worker: bool = True,
    ) -> None:
        self.storage: Storage = (
            open_storage(storage, clock=clock) if isinstance(storage, str | os.PathLike) else storage
        )
        self.clock = clock
        self._source_address = source_address
        self._outage = Outage(clock)
        self._has_worker = has_worker
        self.limits = limits or Limits()
        self.ledger = Ledger()
        self._keys = dict(keys or {})
        self._inventories = {token: dict(own) for token, own in (inventories or {}).items()}
        own = [token if isinstance(token, Token) else Token(token) for token in tokens]
        for token in own:
            if not is_token(token.token):
                raise ValueError(
                    f"the token {token.token!r} cannot stand in a report-uri: 1 to 128 letters, digits and . _ ~ -"
                )
        self._own_tokens = {token.token: replace(token, created_at=token.created_at or clock()) for token in own}
        self._commit = GroupCommit(self._write, self.limits.pending)
        self.worker = Worker(
            self.storage,
            self.flush,
            keys=self._keys,
            inventories=self._inventories,
            roots=roots,
            retention=retention or Retention(),
            alerts=alerts,
            clock=clock,
        )
        self.renew()
        renew_after_fork(self)
        self.intake = Intake(
            self._commit,
            self.ledger,
            self._usable_tokens,
            limits=self.limits,
            clock=clock,
            source_address=source_address,
        )

    def renew(self) -> None:
        """Begin with a lock that nobody holds."""
        self._writing = threading.Lock()

    def begin(self) -> None:
        """Let the worker work; to say so again costs and changes nothing."""
        # Not when this is made: a server may fork after that, and the threads of a parent are none of its children's.
        if self._has_worker:
            self.worker.start()

    def tokens(self) -> list[Token]:
        """Every token, of this process or stored; the revoked ones too."""
        own = self._own_tokens
        return [*own.values(), *(token for token in self.storage.tokens() if token.token not in own)]

    def keys_of(self, token: str) -> Mapping[Pin, str]:
        """The operator's own keys for the policy of a token, pin to name."""
        return self._inventories.get(token, self._keys)

    def flush(self) -> None:
        """Write down what was counted and not yet stored."""
        self._write(())

    def source_of(self, address: str | None) -> str:
        """The source that a client address belongs to, for limits and pauses."""
        return truncated(address, self._source_address)

    def close(self) -> None:
        """Store what waits, and let go of the storage; ends within seconds, whatever the disk does."""
        self._commit.close()
        self.worker.close()
        try:
            self.flush()
        except StoreError as error:
            # Every report was answered, with 503 where it was not stored; what is lost are counts of answers.
            _log.error("the last counts could not be stored: %s", error)
        self.storage.close()

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
            except BaseException as error:
                self.ledger.give_back(counts)
                if isinstance(error, StoreError):
                    self._outage.failed(error, len(arrivals))
                raise
            self._outage.ended()
        if arrivals:
            self.begin()
        if is_new:
            self.worker.call()
