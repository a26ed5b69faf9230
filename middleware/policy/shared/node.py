"""One node among those of its site: what it may send now, and what it tells the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from dynpin.header import PublicKeyPins

from ..keys import Chain
from .document import Objections, Sent, SiteDocument, is_gentler, parse_field
from .kept import SharedState

__all__ = ["Made", "Permitted", "SiteNode"]


class Made(Protocol):
    """What the files of a node make."""

    @property
    def header(self) -> PublicKeyPins:
        """The header, as it stands on the ramp where there is one."""
        ...

    @property
    def chains(self) -> tuple[Chain, ...]:
        """The deployed chains."""
        ...


@dataclass(frozen=True, slots=True)
class Permitted:
    """What a node may send by what it knows of the others.

    Attributes:
        header: the header, or None for none.
        waits: why that is not the one that the files make; empty if it is.
        refusing: a header that clients may hold and that does not accept a deployed chain; then none is sent.
    """

    header: PublicKeyPins | None
    waits: str = ""
    refusing: Sent | None = None


class SiteNode:
    """A node of a site, as which this process runs.

    Args:
        state: what the nodes share.
    """

    def __init__(self, state: SharedState) -> None:
        self.state = state
        self.name = state.source.node

    def permitted(self, built: Made) -> Permitted:
        """What may be sent of what the files make; the copy is read, and no network is asked.

        A header is sent once it was announced. Before that, what was announced last is sent, or what can lock nobody
        out: a header whose clients accept all that they accept now, and forget as soon.

        Raises:
            PolicyError: if the copy cannot be read.
        """
        document, chains = self.state.copy(), _chains(built)
        against = document.objections(self.name, built.header, chains, self.state.now())
        if against.refusing is not None:
            return Permitted(None, refusing=against.refusing)
        me = document.nodes.get(self.name)
        last = None if me is None or me.header is None else parse_field(me.header)
        if built.header == last or (last is not None and is_gentler(built.header, last)) or not _locks(built.header):
            return Permitted(built.header)
        waits = self._waits(against) or f"{self.state} does not have it yet"
        if last is not None and all(set(map(str, last.pins)).intersection(chain) for chain in chains):
            return Permitted(last, f"The header waits, and the one before is sent: {waits}")
        return Permitted(None, f"No header is sent: {waits}")

    def agree(self, built: Made, is_current: Callable[[], bool]) -> str | None:
        """Tell the others what this node sends and shows, and see what they do; why the header waits, or an empty text.

        Args:
            built: what the files made.
            is_current: whether they still do: another process of this node may have sent a later header meanwhile.
                Where they do not, nothing is told, and the answer is None.

        Raises:
            PolicyError: if the collector cannot be asked; nothing else moves then.
        """
        found: list[str] = []

        def edit(document: SiteDocument, now: float) -> SiteDocument:
            found.clear()
            if not is_current():
                return document
            chains = _chains(built)
            after = document.announce(self.name, built.header, chains, now, self.state.speaker)
            found.append(self._waits(after.objections(self.name, built.header, chains, now)))
            return after

        self.state.change(edit)
        return found[-1] if found else None

    def _waits(self, against: Objections) -> str:
        if against.doubled is not None:
            one, other = against.doubled
            return (
                f"two nodes call themselves {self.name}: {one} and {other}. Give each a name of its own ([site] node, "
                f"or DYNPIN_NODE); then:  dynpin nodes forget {self.name}"
            )
        if against.waits_for:
            names = ", ".join(against.waits_for)
            return (
                f"node {names} shows a key that the new header does not name, and clients of that header would refuse "
                "it. Deploy the new chain there; if the node is gone:  dynpin nodes forget NAME"
            )
        return ""


def _chains(built: Made) -> list[tuple[str, ...]]:
    return [tuple(str(pin) for pin in chain.pins if pin is not None) for chain in built.chains]


def _locks(header: PublicKeyPins) -> bool:
    return not header.report_only and bool(header.max_age)
