"""The interface of a user agent in the lab: it is installed on a machine, visits hosts and remembers pins."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, TypedDict

from dynpin.clientstore.enforcement import PrivateRoots
from dynpin.clientstore.reports import ReportMode
from dynpin.clientstore.store import ClockJump
from dynpin.hosts import KnownPinnedHost
from dynpin.lab.claims import Claim
from dynpin.noting import Noting
from dynpin.pins import Pin

__all__ = ["Agent", "Machine", "Sent", "Settings", "UserAgent", "Visit"]


class Settings(TypedDict, total=False):
    """The options that a user may choose, if the agent has them (:attr:`Agent.options`).

    ``private`` is a private window; in dynpin it is :meth:`dynpin.clientstore.PinStore.private`. Only dynpin has the
    others. They are arguments of :class:`~dynpin.clientstore.PinStore`, :func:`~dynpin.clientstore.enforce` and
    :class:`~dynpin.clientstore.ReportQueue` (``reports`` is its ``mode``). ``follows`` has the URI of a signed list and
    version 1 of its root, for :meth:`dynpin.clientstore.PinStore.follow`.
    """

    private: bool
    partition: str
    on_clock_jump: ClockJump
    max_hosts_per_domain: int
    private_roots: PrivateRoots
    reports: ReportMode
    recovery: Literal["on", "off"]
    follows: tuple[str, bytes]


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """The machine of a user agent.

    Attributes:
        folder: the agent's own folder for its files. It exists.
        public_roots: the roots that a browser ships, DER. Read at each visit, so they may change.
        private_roots: the roots that the user has installed, DER. Read at each visit too.
        clock: returns seconds since the epoch, UTC.
        network: for each name, the port of 127.0.0.1 that answers it now, for https and http alike.
        pins: False for the same program without pinning.
        settings: the options that its user has chosen.
    """

    folder: Path
    public_roots: Sequence[bytes]
    private_roots: Sequence[bytes] = ()
    clock: Callable[[], float]
    network: Mapping[str, int]
    pins: bool = True
    settings: Settings = field(default_factory=Settings)


@dataclass(frozen=True, kw_only=True, slots=True)
class Visit:
    """The agent's view of one visit. Exactly one of `status`, `refusal` and `failure` is set.

    Attributes:
        host: the name that was visited.
        status: the status of the response, or None if there was no response.
        refusal: why Pin Validation refused the connection, in one line of the agent's own words; or None.
        failure: why TLS or the network failed for another reason, in one line; or None.
        chain: the pins of the validated chain, leaf first; empty if there was none, or if the agent does not report it.
        known_host: the entry that applied when the visit began, or None.
        noting: the result of the Public-Key-Pins header; None if there was no response or no such header.
        section: the section of RFC 7469 behind the refusal or the noting; empty if there was neither.
    """

    host: str
    status: int | None = None
    refusal: str | None = None
    failure: str | None = None
    chain: tuple[Pin, ...] = ()
    known_host: KnownPinnedHost | None = None
    noting: Noting | None = None
    section: str = ""


@dataclass(frozen=True, slots=True)
class Sent:
    """One attempt to send a violation report (RFC 7469 §3).

    Attributes:
        report_uri: where it was sent.
        taken: whether the server accepted it.
        reason: the result, in words.
    """

    report_uri: str
    taken: bool
    reason: str


class UserAgent(Protocol):
    """One installed user agent with its memory."""

    def visit(self, host: str, *, secret: str, path: str = "/") -> Visit:
        """GET ``https://host/path`` on a new connection, with `secret` as its Authorization.

        Redirects are not followed.
        """
        ...

    def load(self, hosts: Sequence[str]) -> None:
        """GET ``/`` of each host, as a browser loads the pictures of a page. No connection is left open.

        A host that is refused or gives no answer is passed over.
        """
        ...

    def known_host(self, host: str) -> KnownPinnedHost | None:
        """The entry that applies to the host now: its own or a superdomain's."""
        ...

    def known_hosts(self) -> list[KnownPinnedHost]:
        """All living entries, by name."""
        ...

    def preload(self, host: str, pins: Sequence[Pin], *, expires_at: float | None = None) -> None:
        """Add pins that come with the agent, not from a response (RFC 7469 §2.7). Without `expires_at` they stay."""
        ...

    def forget(self, host: str) -> bool:
        """Remove the host's own entry by the means that a user has; False if there was none."""
        ...

    def report_at_once(self) -> list[Sent]:
        """Send the reports that the agent sends right after a visit, and the reports about those requests."""
        ...

    def send_reports(self) -> list[Sent]:
        """Send the reports that wait for a later time. Returns each attempt."""
        ...

    def restart(self, *, crashed: bool = False) -> None:
        """End the agent and start it again. Its files remain; after a crash nothing else does."""
        ...

    def close(self) -> None:
        """End the agent."""
        ...


@dataclass(frozen=True, slots=True)
class Agent:
    """A kind of user agent.

    Attributes:
        name: the value for ``--agent``, such as ``"chromium"``.
        title: for people, such as ``"Chromium 71 (model)"``.
        departs: where it differs from the RFC, or makes a choice.
        install: installs it on a machine.
        options: the options that a user may choose; names of :class:`Settings`.
        missing: why it cannot be installed here, in words; None if it can.
    """

    name: str
    title: str
    departs: tuple[Claim, ...]
    install: Callable[[Machine], UserAgent]
    options: frozenset[str] = frozenset()
    missing: Callable[[], str | None] = lambda: None
