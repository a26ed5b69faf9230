"""What the collector keeps, and the interface that a backend implements; SQLite is the one that comes along."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, NamedTuple, Protocol, TypeVar

from .access import APIToken, AuditEntry
from .filters import Filter

__all__ = [
    "HOUR",
    "LEASE_S",
    "MAX_SITE_STATE",
    "MODES",
    "STATES",
    "Arrival",
    "Cause",
    "Column",
    "Counted",
    "Group",
    "Mode",
    "Outcome",
    "Page",
    "Pruned",
    "Retention",
    "Rise",
    "Shared",
    "SiteState",
    "State",
    "Storage",
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
# How long a worker may do a kind of work before it says that it still lives.
LEASE_S = 60.0
Entry = TypeVar("Entry")


class Counted(NamedTuple):
    """One kind of answer of the intake in one hour (hours since the epoch)."""

    hour: int
    token: str
    outcome: Outcome
    reason: str


class Cause(NamedTuple):
    """What all reports of one group have in common, and the key that tells it (:func:`dynpin.report.grouping_key`)."""

    key: str
    mode: Mode
    host: str
    noted_host: str
    port: int | None
    known_pins: tuple[str, ...]
    validated_pins: tuple[str, ...]


class Shared(NamedTuple):
    """A text that many bodies are, but for their dates: the pieces around two dates, and a hash of the pieces."""

    digest: bytes
    pieces: tuple[str, str, str]


class Arrival(NamedTuple):
    """A report that the intake accepted, as it is to be stored.

    `body` is what came. Where `shared` is given, it is the three pieces with the two `dates` between them, and a
    storage may keep the pieces once for all reports that have them.
    """

    cause: Cause
    flags: tuple[str, ...]
    observed_at: float | None
    expires_at: float | None
    token: str
    source: str
    user_agent: str
    received_at: float
    body: str
    shared: Shared | None = None
    dates: tuple[str, str] = ("", "")


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
    """What triage found out about a group: the verdict, and the diagnosis as the JSON that the pages show.

    `pins` has each pin of the chains, its place, and the name of the CA whose key it is, where it is one.
    `judged_with` tells the keys and roots of this verdict from others.
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


@dataclass(frozen=True, slots=True)
class Rise:
    """A group that sends more than it did: reports in this hour, and in an average hour of the day before."""

    group: Group
    reports: int
    before: float
    announced_at: float | None


# So many bytes of JSON a site may keep with the collector.
MAX_SITE_STATE = 256 * 1024


@dataclass(frozen=True, slots=True)
class SiteState:
    """What the nodes of one site share; the storage does not read it.

    Attributes:
        host: the site.
        version: 1 for the first, and one more with each change.
        state: JSON text of at most `MAX_SITE_STATE` bytes.
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
    """What is kept: nothing older than `days`, at most `bytes` in all, and `samples` bodies of each group."""

    days: float = 90
    bytes: int = 2**30
    samples: int = 200


@dataclass(frozen=True, slots=True)
class Pruned:
    """How much pruning took away; `samples` are bodies of reports that stay as rows."""

    reports: int
    groups: int
    samples: int


class Storage(Protocol):
    """Where the collector keeps what it takes. Every method may be called from any thread; see ``sqlite.py``."""

    def add(self, arrivals: Sequence[Arrival], outcomes: Mapping[Counted, int]) -> bool:
        """Store reports and counts; what is there when this returns survives a loss of power.

        Returns:
            Whether a group of these reports waits for its verdict.
        """
        ...

    def reports(self, wanted: Filter, *, cursor: str | None = None, limit: int = 50) -> Page[StoredReport]:
        """The reports that a filter wants, newest first."""
        ...

    def groups(
        self, wanted: Filter, *, cursor: str | None = None, limit: int = 50, newest: bool = False
    ) -> Page[Group]:
        """The groups that a filter wants, the last seen first, or those first seen last."""
        ...

    def group(self, key: str) -> Group | None:
        """One group by its key."""
        ...

    def activity(self, wanted: Filter, since: int, until: int) -> list[tuple[int, str, int]]:
        """Hour, mode and number of reports, for the hours from `since` up to and without `until`."""
        ...

    def tally(self, wanted: Filter, column: Column, limit: int = 10) -> list[tuple[str, int, int]]:
        """Value, number of groups and number of reports, by a column of the groups, most reports first."""
        ...

    def agents(self, group: Group) -> list[tuple[str, int]]:
        """User agents of a group and how many reports each sent, most first."""
        ...

    def outcomes(self, since: int) -> list[tuple[str, str, int]]:
        """Outcome, reason and number of what the intake answered since an hour, most first."""
        ...

    def accepted(self, hour: int) -> dict[str, int]:
        """Reports that were accepted in an hour (hours since the epoch) by all nodes together, by token."""
        ...

    def site_state(self, host: str) -> SiteState | None:
        """What the nodes of a site share; None where they share nothing yet."""
        ...

    def set_site_state(self, host: str, state: str, *, expected: int, by: str) -> SiteState | None:
        """Change what the nodes of a site share, where nobody else has done so meanwhile.

        Args:
            host: the site.
            state: JSON text of at most `MAX_SITE_STATE` bytes.
            expected: the version that the writer has seen; 0 for none.
            by: the name of the token that changes it.

        Returns:
            What is kept now; None where another version than the expected one is there, and nothing was changed.

        Raises:
            ValueError: where the text is too long.
        """
        ...

    def untriaged(self, limit: int, judged_with: str = "") -> list[tuple[Group, str, float]]:
        """Groups without a verdict or with one of other keys, each with the body of a report and when that came."""
        ...

    def authorities(self, pins: Sequence[str]) -> dict[str, str]:
        """The names of CAs whose keys have these pins, as earlier reports showed them."""
        ...

    def set_verdicts(self, judged: Iterable[tuple[Group, Triaged]]) -> None:
        """Store what triage found."""
        ...

    def claim(self, work: str, holder: str) -> bool:
        """Take or prolong the lease of a kind of work, for `LEASE_S` seconds; False where another has it."""
        ...

    def release(self, holder: str) -> None:
        """Give back all leases of a holder."""
        ...

    def set_state(self, key: str, state: State, by: AuditEntry | None = None) -> bool:
        """Open, mute or resolve a group, and keep who did it; False where there is none."""
        ...

    def record(self, entry: AuditEntry) -> None:
        """Keep what somebody did."""
        ...

    def audit(self, subject: str | None = None, limit: int = 100) -> list[AuditEntry]:
        """What was done, the last first; to one subject, or to all."""
        ...

    def add_api_token(self, token: APIToken) -> bool:
        """Keep a token of the API; False where one of this name may still be used."""
        ...

    def api_token(self, digest: str) -> APIToken | None:
        """The token of the API with this hash, ended or not."""
        ...

    def api_tokens(self) -> list[APIToken]:
        """Every token of the API, ended or not, oldest first."""
        ...

    def use_api_token(self, digest: str, at: float) -> None:
        """Remember when a token of the API was used last."""
        ...

    def revoke_api_token(self, name: str) -> bool:
        """Let a token of the API be used no more; False where there is none that could be."""
        ...

    def tokens(self) -> list[Token]:
        """Every token, the revoked ones too."""
        ...

    def add_token(self, token: Token) -> None:
        """Keep a token; one that exists is replaced."""
        ...

    def name_tokens(self, tokens: Iterable[str], at: float) -> None:
        """Remember that a collector started with these tokens in its settings."""
        ...

    def named_tokens(self) -> dict[str, float]:
        """Tokens of the settings of collectors, and when one started with them last."""
        ...

    def revoke_token(self, token: str) -> bool:
        """Let a token be used no more; False where there is none that could be."""
        ...

    def add_session(self, identity: str, name: str, expires_at: float) -> None:
        """Keep a session, and forget those that ended."""
        ...

    def session(self, identity: str) -> str | None:
        """The name of a session that is there and has not ended."""
        ...

    def end_session(self, identity: str) -> None:
        """Forget a session."""
        ...

    def secret(self) -> str:
        """A random text that belongs to this storage."""
        ...

    def unannounced(self, limit: int) -> list[Group]:
        """Judged, open groups that no alert has told of."""
        ...

    def rising(self, hour: int, factor: float, at_least: int) -> list[Rise]:
        """Open groups that sent so many more reports in this hour than on average in the day before."""
        ...

    def announce(self, groups: Iterable[Group], at: float) -> None:
        """Remember that an alert has told of these groups."""
        ...

    def fact(self, name: str) -> float | None:
        """A number kept under a name."""
        ...

    def set_fact(self, name: str, value: float) -> None:
        """Keep a number under a name."""
        ...

    def prune(self, retention: Retention) -> Pruned:
        """Delete what is not to be kept."""
        ...

    def probe(self, patience: float) -> None:
        """Write something durably; others are waited for no longer than so many seconds.

        Raises:
            StoreError: where reports could not be stored now; the message says why.
        """
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...
