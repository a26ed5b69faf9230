"""What a user agent is to the lab: something installed on a machine, that visits hosts and remembers pins."""

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
    """What a user may opt in to, where the agent has it (:attr:`Agent.options`).

    ``private`` is a private window: in dynpin :meth:`dynpin.clientstore.PinStore.private`. The others are dynpin's
    alone, arguments of :class:`~dynpin.clientstore.PinStore`, :func:`~dynpin.clientstore.enforce` and
    :class:`~dynpin.clientstore.ReportQueue` (``reports`` is its ``mode``). ``follows`` is the URI and version 1 of the
    root of a signed list, for :meth:`dynpin.clientstore.PinStore.follow`.
    """

    private: bool
    partition: str
    on_clock_jump: ClockJump
    private_roots: PrivateRoots
    reports: ReportMode
    recovery: Literal["on", "off"]
    follows: tuple[str, bytes]


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """What a user agent is installed on.

    Attributes:
        folder: where it keeps its files; nobody else's. It exists.
        public_roots: the roots that a browser ships, DER. Read anew at each visit, so that they may change.
        private_roots: the roots that the user has installed besides, DER; likewise.
        clock: gives seconds since the epoch, UTC.
        network: the port of 127.0.0.1 at which a name is answered now, for https and http alike.
        pins: False for a user agent that knows nothing of pinning: the same program without it.
        settings: what its user has opted in to.
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
    """What a user agent saw of one visit. Of `status`, `refusal` and `failure` exactly one is there.

    Attributes:
        host: the name that was visited.
        status: of the response, or None where none came.
        refusal: why Pin Validation refused the connection, in one line of the agent's own words; or None.
        failure: why TLS or the network failed otherwise, in one line; or None.
        chain: the pins of the validated chain, leaf first; empty where there was none, or the agent does not tell.
        known_host: the entry that applied when the visit began, or None.
        noting: what the Public-Key-Pins header did; None where no response came, or one without that header.
        section: the section of RFC 7469 behind the refusal or the noting; empty where there was neither.
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
        report_uri: where it was to go.
        taken: whether it was taken there.
        reason: what came of it, in words.
    """

    report_uri: str
    taken: bool
    reason: str


class UserAgent(Protocol):
    """One installed user agent, and what it remembers."""

    def visit(self, host: str, *, secret: str, path: str = "/") -> Visit:
        """GET ``https://host/path`` on a new connection, with `secret` as its Authorization.

        Redirects are not followed.
        """
        ...

    def known_host(self, host: str) -> KnownPinnedHost | None:
        """The entry that applies to the host now, its own or a superdomain's."""
        ...

    def known_hosts(self) -> list[KnownPinnedHost]:
        """Every entry that is alive, by name."""
        ...

    def preload(self, host: str, pins: Sequence[Pin], *, expires_at: float | None = None) -> None:
        """Have pins that come with the agent and from no response (RFC 7469 §2.7); without `expires_at` for good."""
        ...

    def forget(self, host: str) -> bool:
        """Do what the user can do to have the host's own entry gone; False where there was none."""
        ...

    def report_at_once(self) -> list[Sent]:
        """Send the violation reports that the agent sends right after a visit, with what these set off."""
        ...

    def send_reports(self) -> list[Sent]:
        """Send the violation reports that wait for a better moment, and tell of each attempt."""
        ...

    def restart(self, *, crashed: bool = False) -> None:
        """End the agent and start it again: what is on its disk remains, and after a crash nothing else."""
        ...

    def close(self) -> None:
        """End the agent."""
        ...


@dataclass(frozen=True, slots=True)
class Agent:
    """A kind of user agent.

    Attributes:
        name: as ``--agent`` takes it, such as ``"chromium"``.
        title: for people, such as ``"Chromium 71 (model)"``.
        departs: where it departs from the RFC, or chooses.
        install: installs it on a machine.
        options: what a user may opt in to; the names of :class:`Settings`.
        missing: why it cannot be installed here, in words; None where it can.
    """

    name: str
    title: str
    departs: tuple[Claim, ...]
    install: Callable[[Machine], UserAgent]
    options: frozenset[str] = frozenset()
    missing: Callable[[], str | None] = lambda: None
