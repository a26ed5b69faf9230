"""One node of a site: the header that it may send now, and its announcements."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from dynpin.header import PublicKeyPins
from dynpin.pins import Pin

from .document import Objections, Sent, SiteDocument, is_gentler, is_noted, parse_field
from .kept import SharedState

__all__ = ["Made", "Permitted", "SiteNode"]


class Made(Protocol):
    """The result of a node's files."""

    @property
    def header(self) -> PublicKeyPins:
        """The header; if there is a ramp, with the max-age of its position."""
        ...

    @property
    def shown(self) -> tuple[tuple[Pin, ...], ...]:
        """The pins of each deployed chain, leaf first."""
        ...


@dataclass(frozen=True, slots=True)
class Permitted:
    """The header that a node may send, from what it knows of the other nodes.

    Attributes:
        header: the header, or None.
        waits: why it is not the header of the files; empty if it is.
        refusing: a header that clients may hold and that does not accept a deployed chain; then no header is sent.
    """

    header: PublicKeyPins | None
    waits: str = ""
    refusing: Sent | None = None


class SiteNode:
    """The node of this process.

    Args:
        state: the shared state.
    """

    def __init__(self, state: SharedState) -> None:
        self.state = state
        self.name = state.source.node

    def permitted(self, built: Made) -> Permitted:
        """The header that may be sent now. This reads the copy, and uses no network.

        A header is sent after it was announced. Until then the node sends the last announced header, or a gentler one,
        which locks nobody out (:func:`.is_gentler`).

        Raises:
            PolicyError: if the copy cannot be read.
        """
        document, chains = self.state.copy(), _chains(built)
        against = document.objections(self.name, built.header, chains, self.state.now())
        if against.refusing is not None:
            return Permitted(None, refusing=against.refusing)
        me = document.nodes.get(self.name)
        last = None if me is None or me.header is None else parse_field(me.header)
        if built.header == last or (last is not None and is_gentler(built.header, last)) or not is_noted(built.header):
            return Permitted(built.header)
        waits = self._waits(against) or f"{self.state} does not have it yet"
        if last is not None and all(set(map(str, last.pins)).intersection(chain) for chain in chains):
            return Permitted(last, f"The new header waits, and the old one is sent: {waits}")
        return Permitted(None, f"No header is sent: {waits}")

    def agree(self, built: Made, is_current: Callable[[], bool]) -> str | None:
        """Announce this node's header and chains, and read those of the others. Why the header waits, or an empty text.

        Args:
            built: the result of the files.
            is_current: whether the files are unchanged. Another process of this node may have sent a later header. If
                they have changed, nothing is announced, and the result is None.

        Raises:
            PolicyError: if the collector cannot be asked. Nothing has changed then.
        """
        found: list[str] = []

        def edit(document: SiteDocument, now: float) -> SiteDocument:
            found.clear()
            if not is_current():
                return document
            chains = _chains(built)
            after = document.announce(self.name, built.header, chains, now, self.state.sender)
            found.append(self._waits(after.objections(self.name, built.header, chains, now)))
            return after

        self.state.change(edit)
        return found[-1] if found else None

    def _waits(self, against: Objections) -> str:
        if against.doubled is not None:
            one, other = against.doubled
            return (
                f"two nodes have the name {self.name}: {one} and {other}. Give each its own name ([site] node, "
                f"or DYNPIN_NODE); then:  dynpin nodes forget {self.name}"
            )
        if against.waits_for:
            names = ", ".join(against.waits_for)
            return (
                f"node {names} has a key that the new header does not pin, so clients of that header would refuse "
                "it. Deploy the new chain there; if the node is gone:  dynpin nodes forget NAME"
            )
        return ""


def _chains(built: Made) -> list[tuple[str, ...]]:
    return [tuple(map(str, chain)) for chain in built.shown]
