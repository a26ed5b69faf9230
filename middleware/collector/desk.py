"""What both kinds of server share: the storage, the group commit, the tokens and the intake."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from dynpin.middleware.collector.commit import GroupCommit
from dynpin.middleware.collector.intake import Intake
from dynpin.middleware.collector.limits import Ledger, Limits
from dynpin.middleware.collector.storage import Arrival, Storage, Token

__all__ = ["Desk"]


class Desk:
    """The collector behind its doors.

    Args:
        storage: where reports are kept.
        tokens: tokens that hold as long as this process runs, beside those in the storage.
        limits: the bounds of the intake.
        clock: seconds since the epoch, UTC.
        truncate_addresses: keep the /24 or /48 of a client, never its address.
    """

    def __init__(
        self,
        storage: Storage,
        *,
        tokens: Iterable[str | Token] = (),
        limits: Limits | None = None,
        clock: Callable[[], float] = time.time,
        truncate_addresses: bool = True,
    ) -> None:
        self.storage = storage
        self.clock = clock
        self.limits = limits or Limits()
        self.ledger = Ledger()
        given = [token if isinstance(token, Token) else Token(token) for token in tokens]
        self._given = {token.token: replace(token, created_at=token.created_at or clock()) for token in given}
        self._commit = GroupCommit(self._write, self.limits.pending)
        self.intake = Intake(
            self._commit,
            self.ledger,
            self._usable_tokens,
            limits=self.limits,
            clock=clock,
            truncate_addresses=truncate_addresses,
        )

    def tokens(self) -> list[Token]:
        """Every token, given here or stored; the revoked ones too."""
        return [*self._given.values(), *(token for token in self.storage.tokens() if token.token not in self._given)]

    def flush(self) -> None:
        """Write down what was counted and not yet stored."""
        self._write(())

    def close(self) -> None:
        """Store what waits, and let go of the storage."""
        self._commit.close()
        self.flush()
        self.storage.close()

    def _usable_tokens(self) -> dict[str, Token]:
        return {token.token: token for token in self.tokens() if token.revoked_at is None}

    def _write(self, arrivals: Sequence[Arrival]) -> None:
        counts = self.ledger.take()
        if not arrivals and not counts:
            return
        try:
            self.storage.add(arrivals, counts)
        except BaseException:
            self.ledger.give_back(counts)
            raise
