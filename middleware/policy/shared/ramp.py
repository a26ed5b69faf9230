"""The position on a ramp, where the nodes of a site share it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from dynpin.errors import PolicyError

from ..steps import Position
from .document import RampState, SiteDocument
from .kept import SharedState

__all__ = ["SharedRamp"]


class SharedRamp:
    """The position on the ramp of one report-uri, in a shared state: read from the copy, moved by compare and set.

    Args:
        state: the shared state.
        token: that of the report-uri by whose reports this ramp moves.
    """

    def __init__(self, state: SharedState, token: str) -> None:
        self.state, self.token = state, token

    def now(self, clock: Callable[[], float]) -> float:
        """The time by the collector's clock: of two nodes with two times the ramp would take both for quiet."""
        return self.state.now()

    def read(self) -> Position | None:
        """The position as it was seen last, or None if the ramp has not begun."""
        kept = self._own(self.state.copy())
        return None if kept is None else kept.position

    def sent(self) -> tuple[tuple[float, int | None], ...]:
        """Since when which max-age was sent, oldest first; None is report-only."""
        kept = self._own(self.state.copy())
        return () if kept is None else kept.sent

    def change(
        self, begin: Position, decide: Callable[[Position, float], Position], now: float
    ) -> tuple[Position, Position]:
        """Decide from the position as it is, where no other node does so meanwhile; the position before and after."""
        found: list[tuple[Position, Position]] = []

        def edit(document: SiteDocument, at: float) -> SiteDocument:
            kept = self._own(document)
            before = replace(begin, began_at=int(at)) if kept is None else kept.position
            after = decide(before, at)
            found.append((before, after))
            if kept is None:
                document = document.with_position(self.token, None, before, at)
            return document if after == before else document.with_position(self.token, before, after, at)

        self.state.change(edit)
        return found[-1]

    def restart(self, begin: Position, now: float) -> tuple[Position, Position]:
        """Start again, also where it was the ramp of another report-uri; the position before and after."""
        before: list[Position] = []

        def edit(document: SiteDocument, at: float) -> SiteDocument:
            was = None if document.ramp is None else document.ramp.position
            before.append(was or begin)
            return document.with_position(self.token, was, begin, at)

        self.state.change(edit)
        return before[-1], begin

    def _own(self, document: SiteDocument) -> RampState | None:
        kept = document.ramp
        if kept is not None and kept.token != self.token:
            raise PolicyError(
                f"{self.state} has the ramp of another report-uri: every node names the same in [policy] report_uri. "
                "If it has changed on purpose:  dynpin ramp restart"
            )
        return kept
