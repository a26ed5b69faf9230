"""What the collector keeps, and the interface that a backend implements; SQLite is the one that comes along."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, NamedTuple, Protocol, TypeVar

from dynpin.middleware.collector.filters import Filter
from dynpin.report import Report

__all__ = [
    "Arrival",
    "Counted",
    "Group",
    "Mode",
    "Outcome",
    "Page",
    "State",
    "Storage",
    "StoredReport",
    "Token",
    "Triaged",
]

Mode = Literal["enforce", "report-only"]
State = Literal["open", "muted", "resolved"]
Outcome = Literal["accepted", "filtered", "rejected"]
HOUR = 3600
Entry = TypeVar("Entry")


class Counted(NamedTuple):
    """One kind of answer of the intake in one hour (hours since the epoch)."""

    hour: int
    token: str
    outcome: Outcome
    reason: str


@dataclass(frozen=True, slots=True)
class Arrival:
    """A report that the intake accepted, as it is to be stored."""

    report: Report
    body: str
    key: str
    mode: Mode
    token: str
    source: str
    user_agent: str
    received_at: float
    validated_pins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Token:
    """The part of a report-uri that names one policy.

    Attributes:
        token: what stands in the URL.
        name: what people call it.
        hosts: the hosts whose reports it takes, with their subdomains; empty for any.
        created_at: seconds since the epoch, UTC.
        revoked_at: when it was revoked, or None.
    """

    token: str
    name: str = ""
    hosts: tuple[str, ...] = ()
    created_at: float = 0.0
    revoked_at: float | None = None

    def takes(self, host: str) -> bool:
        """Whether a report about this host is for this token."""
        return not self.hosts or any(host == own or host.endswith(f".{own}") for own in self.hosts)


@dataclass(frozen=True, slots=True)
class Triaged:
    """What triage found out about a group: the verdict, and the diagnosis as the JSON that the pages show."""

    verdict: str
    severity: str
    issuer: str
    diagnosis: str
    pins: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Group:
    """All reports of one cause (:func:`dynpin.report.grouping_key`)."""

    id: int
    key: str
    host: str
    noted_host: str
    port: int | None
    mode: str
    token: str
    known_pins: tuple[str, ...]
    validated_pins: tuple[str, ...]
    first_seen: float
    last_seen: float
    reports: int
    issuer: str | None
    verdict: str | None
    severity: str | None
    diagnosis: str | None
    state: str


@dataclass(frozen=True, slots=True)
class StoredReport:
    """One report as it is kept; `body` is None once its sample was pruned."""

    id: int
    group: Group
    received_at: float
    observed_at: float | None
    expires_at: float | None
    token: str
    source: str
    user_agent: str
    flags: tuple[str, ...]
    body: str | None


@dataclass(frozen=True, slots=True)
class Page(Generic[Entry]):
    """Some entries, newest first, and the cursor that gives the next ones; None at the end."""

    entries: list[Entry] = field(default_factory=list[Entry])
    cursor: str | None = None


class Storage(Protocol):
    """Where the collector keeps what it takes. Every method may be called from any thread."""

    def add(self, arrivals: Sequence[Arrival], outcomes: Mapping[Counted, int]) -> None:
        """Store reports and counts; what is there when this returns survives a loss of power."""
        ...

    def reports(self, wanted: Filter, *, cursor: str | None = None, limit: int = 50) -> Page[StoredReport]:
        """The reports that a filter wants, newest first."""
        ...

    def groups(self, wanted: Filter, *, cursor: str | None = None, limit: int = 50) -> Page[Group]:
        """The groups that a filter wants, the last seen first."""
        ...

    def tokens(self) -> Iterable[Token]:
        """Every token, the revoked ones too."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...
