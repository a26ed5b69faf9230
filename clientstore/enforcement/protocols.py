"""The interfaces that the decision needs: a store of pins, a queue of reports, a reader of signed lists."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from dynpin.hosts import KnownPinnedHost
from dynpin.report import Report

__all__ = ["Healer", "Looked", "Pins", "Reporter"]


class Looked(Protocol):
    """What a store says about a host: see :class:`dynpin.clientstore.store.LookUp`."""

    @property
    def known_host(self) -> KnownPinnedHost | None:
        """The entry that applies, or None."""
        ...

    @property
    def now(self) -> float:
        """Seconds since the epoch, UTC."""
        ...

    @property
    def state(self) -> object:
        """The same object for as long as nobody has written."""
        ...


class Pins(Protocol):
    """What the decision asks of a store; :class:`dynpin.clientstore.PinStore` is one."""

    @property
    def path(self) -> Path | str:
        """The file of the store, for messages."""
        ...

    @property
    def is_default(self) -> bool:
        """Whether it is the user's own store."""
        ...

    def look_up(self, name: str) -> Looked:
        """What applies to a canonical host now."""
        ...

    def look(self) -> tuple[object, float]:
        """The state of the store and the current time."""
        ...

    def hosts(self) -> Iterable[KnownPinnedHost]:
        """Every Known Pinned Host."""
        ...


class Reporter(Protocol):
    """Takes violation reports to send (RFC 7469 §3): :class:`dynpin.clientstore.ReportQueue` is one."""

    def add(self, report: Report, report_uri: str) -> object:
        """Keep the report until it is sent. An exception here does not hide the violation.

        If the object has a method ``add_soon`` with the same arguments, it is called instead on an event loop's thread.
        If it has a method ``resume``, that is called at the first handshake of a process.
        """
        ...


class Healer(Protocol):
    """Looks at signed lists: :class:`dynpin.clientstore.healing.Healing` is one."""

    def ask(self, known: KnownPinnedHost, *, may_wait: bool) -> None:
        """Ask for a look at the list of this host's root: a connection was refused, and the list may have new pins."""
        ...

    def resume(self) -> None:
        """Continue the work that an earlier process left unfinished."""
        ...
