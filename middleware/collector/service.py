"""What all parts share: the storage, the tokens, the intake with its group commit, and the worker."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from dynpin.pins import Pin

from .fork import renew_after_fork
from .intake import GroupCommit, Intake, Ledger, Limits
from .storage import Arrival, Retention, SQLiteStorage, Storage, Token
from .worker import Alerts, Worker

__all__ = ["Service"]


class Service:
    """The parts of one collector in one process, put together.

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
        own = [token if isinstance(token, Token) else Token(token) for token in tokens]
        self._own_tokens = {token.token: replace(token, created_at=token.created_at or clock()) for token in own}
        self._commit = GroupCommit(self._write, self.limits.pending)
        self.worker = Worker(
            self.storage,
            self.flush,
            keys=self.keys,
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
            truncate_addresses=truncate_addresses,
        )

    def renew(self) -> None:
        """Begin with a lock that nobody holds."""
        self._writing = threading.Lock()

    def tokens(self) -> list[Token]:
        """Every token, of this process or stored; the revoked ones too."""
        own = self._own_tokens
        return [*own.values(), *(token for token in self.storage.tokens() if token.token not in own)]

    def flush(self) -> None:
        """Write down what was counted and not yet stored."""
        self._write(())

    def close(self) -> None:
        """Store what waits, and let go of the storage."""
        self._commit.close()
        self.worker.close()
        self.flush()
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
            except BaseException:
                self.ledger.give_back(counts)
                raise
        if arrivals:
            self.worker.begin(is_new)
