"""The position on a ramp that the nodes of a site share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from dynpin.errors import PolicyError

from ..steps import Position
from .document import RampState, SiteDocument
from .kept import SharedState

__all__ = ["SharedRamp"]


class SharedRamp:
    """The position on the ramp of one report-uri, in a shared state: read from the copy, changed by compare and set.

    Args:
        state: the shared state.
        token: the token of the report-uri of this ramp.
    """

    def __init__(self, state: SharedState, token: str) -> None:
        self.state, self.token = state, token

    def now(self, clock: Callable[[], float]) -> float:
        """The time of the collector's clock: with two different clocks, the ramp would count quiet time twice."""
        return self.state.now()

    def read(self) -> Position | None:
        """The last known position, or None if the ramp has not begun."""
        kept = self._own(self.state.copy())
        return None if kept is None else kept.position

    def sent(self) -> tuple[tuple[float, int | None], ...]:
        """The history of max-age, oldest first: when it began, and the max-age (seconds); None means report-only."""
        kept = self._own(self.state.copy())
        return () if kept is None else kept.sent

    def change(
        self, begin: Position, decide: Callable[[Position, float], Position], now: float
    ) -> tuple[Position, Position]:
        """Change the position, if no other node does so at the same time; the position before and after."""
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
        """Start again, even if the ramp was that of another report-uri; the position before and after."""
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
                f"{self.state} has the ramp of another report-uri: all nodes must have the same [policy] report_uri. "
                "If you changed it on purpose:  dynpin ramp restart"
            )
        return kept
