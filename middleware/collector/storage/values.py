"""The values that the collector stores."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, Literal, NamedTuple, TypeVar

__all__ = [
    "HOUR",
    "LEASE_S",
    "MODES",
    "MOST_DAYS",
    "STATES",
    "STEPS",
    "Arrival",
    "Cause",
    "ChannelNote",
    "Column",
    "Counted",
    "Group",
    "Mode",
    "Outcome",
    "Page",
    "PendingAlert",
    "Pruned",
    "Retention",
    "Rise",
    "SiteState",
    "State",
    "Step",
    "StoredReport",
    "Token",
    "Triaged",
]

Mode = Literal["enforce", "report-only"]
State = Literal["open", "muted", "resolved"]
MODES: tuple[Mode, ...] = ("enforce", "report-only")
STATES: tuple[State, ...] = ("open", "muted", "resolved")
Outcome = Literal["accepted", "filtered", "rejected"]
Column = Literal["host", "verdict", "issuer", "state"]
HOUR = 3600
# The periods, in hours, of which there are totals: an hour, and a day (UTC).
Step = Literal[1, 24]
STEPS: tuple[Step, ...] = (1, 24)
# How long a lease lasts (seconds). A worker extends it while it works.
LEASE_S = 60.0
# For so long at most reports are kept and a token is valid: times have to stay within the calendar.
MOST_DAYS = 36_500
Entry = TypeVar("Entry")


class Counted(NamedTuple):
    """One kind of answer of the intake in one hour (hours since the epoch)."""

    hour: int
    token: str
    outcome: Outcome
    reason: str


class Cause(NamedTuple):
    """What all reports of one group have in common, and its key (:func:`dynpin.report.grouping_key`)."""

    key: str
    mode: Mode
    host: str
    noted_host: str
    port: int | None
    known_pins: tuple[str, ...]
    validated_pins: tuple[str, ...]


class Arrival(NamedTuple):
    """A report that the intake accepted, ready to be stored; `body` is the text that was sent."""

    cause: Cause
    flags: tuple[str, ...]
    observed_at: float | None
    expires_at: float | None
    token: str
    source: str
    user_agent: str
    received_at: float
    body: str


@dataclass(frozen=True, slots=True)
class Token:
    """The part of a report-uri that names one policy.

    Attributes:
        token: the text in the URL.
        name: its name for people.
        hosts: the hosts whose reports it takes, with their subdomains; empty for all hosts.
        created_at: seconds since the epoch, UTC.
        revoked_at: when it was revoked, or None.
    """

    token: str
    name: str = ""
    hosts: tuple[str, ...] = ()
    created_at: float = 0.0
    revoked_at: float | None = None

    def takes(self, host: str) -> bool:
        """Whether this token takes reports about this host."""
        return not self.hosts or any(host == own or host.endswith(f".{own}") for own in self.hosts)


@dataclass(frozen=True, slots=True)
class Triaged:
    """What triage found out about a group: the verdict, and the diagnosis as JSON for the pages.

    `pins` has each pin of the chains, its place, and the name of the CA if it is the key of a CA.
    `judged_with` identifies the keys and roots that triage used.
    """

    verdict: str
    severity: str
    issuer: str
    diagnosis: str
    pins: tuple[tuple[str, str, str | None], ...] = ()
    judged_with: str = ""


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
    """One report as it is stored; `body` is None if it is not in the sample of its group."""

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
    """Some entries, newest first, and the cursor of the next page; None on the last page."""

    entries: list[Entry] = field(default_factory=list[Entry])
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class Rise:
    """A group that sends more than before: reports in this hour, and in an average hour of the day before."""

    group: Group
    reports: int
    before: float
    announced_at: float | None


@dataclass(frozen=True, slots=True)
class PendingAlert:
    """An alert that a channel has still to take, about a new group, or one that rises (see :class:`Rise`)."""

    group: Group
    reports: int | None = None
    before: float | None = None


@dataclass(frozen=True, slots=True)
class ChannelNote:
    """The state of a channel of alerts.

    Attributes:
        name: its name, without secrets.
        sent_at: when it last took a message; seconds since the epoch, UTC.
        sent: the subject of that message.
        digest_at: the end of the period of its last digest.
        failing_since: since when it takes no message; None if it works.
        waiting: how many groups it must still be told of.
    """

    name: str
    sent_at: float | None = None
    sent: str = ""
    digest_at: float | None = None
    failing_since: float | None = None
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class SiteState:
    """The state that the nodes of one site share; the storage does not interpret it.

    Attributes:
        host: the site.
        version: 1 for the first; each change adds one.
        state: JSON text.
        changed_at: seconds since the epoch, UTC.
        changed_by: the name of the token that changed it.
    """

    host: str
    version: int
    state: str
    changed_at: float
    changed_by: str


@dataclass(frozen=True, slots=True)
class Retention:
    """How much is kept: nothing older than `days`, and at most `bytes` in total.

    Raises:
        ValueError: if `days` is negative, or more than `MOST_DAYS`.
    """

    days: float = 90
    bytes: int = 2**30

    def __post_init__(self) -> None:
        """Raise for such days."""
        if not 0 <= self.days <= MOST_DAYS:
            raise ValueError(f"reports cannot be kept for {self.days:g} days: name a number from 0 to {MOST_DAYS}")


@dataclass(frozen=True, slots=True)
class Pruned:
    """How many rows were deleted."""

    reports: int
    groups: int
