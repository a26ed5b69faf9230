"""The interface of a storage, by who uses it: the intake, the pages, the worker, the administration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from .access import APIToken, AuditEntry
from .filters import Filter
from .values import (
    Arrival,
    ChannelNote,
    Column,
    Counted,
    Group,
    Page,
    Pruned,
    Retention,
    Rise,
    SiteState,
    State,
    Step,
    StoredReport,
    Token,
    Triaged,
    Untold,
)

__all__ = ["Admin", "Jobs", "Reader", "Sink", "Storage"]


class Sink(Protocol):
    """What takes what the intake accepted."""

    def add(self, arrivals: Sequence[Arrival], outcomes: Mapping[Counted, int]) -> bool:
        """Store reports and counts; what is there when this returns survives a loss of power.

        Args:
            arrivals: the reports.
            outcomes: what the intake answered, and how often.

        Returns:
            Whether a group of these reports waits for its verdict.
        """
        ...

    def probe(self, patience: float) -> None:
        """Write something durably; others are waited for no longer than so many seconds.

        Raises:
            StoreError: where reports could not be stored now; the message says why.
        """
        ...

    def accepted(self, hour: int) -> dict[str, int]:
        """Reports that were accepted in an hour (hours since the epoch) by all nodes together, by token."""
        ...


class Reader(Protocol):
    """What answers what people and programs ask about reports."""

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

    def activity(self, wanted: Filter, since: int, until: int, step: Step = 1) -> list[tuple[int, str, int]]:
        """Hour, mode and number of reports, for the hours from `since` up to and without `until`.

        With a step of 24 the same for the days of UTC, each named by its first hour; both ends are then midnights.
        """
        ...

    def tally(self, wanted: Filter, column: Column, limit: int = 10) -> list[tuple[str, int, int]]:
        """Value, groups and reports of each, by a column of the groups: most reports first, then last seen first."""
        ...

    def agents(self, group: Group) -> list[tuple[str, int]]:
        """User agents of a group and how many reports each sent, most first."""
        ...

    def channels(self) -> list[ChannelNote]:
        """What became of each channel of alerts, by its name."""
        ...

    def outcomes(self, since: int) -> list[tuple[str, str, int]]:
        """Outcome, reason and number of what the intake answered since an hour, most first."""
        ...


class Jobs(Protocol):
    """What gives the worker what it works on."""

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

    def unannounced(self, limit: int) -> list[Group]:
        """Judged, open groups that no alert has told of."""
        ...

    def rising(self, hour: int, factor: float, at_least: int) -> list[Rise]:
        """Open groups that sent so many more reports in this hour than on average in the day before."""
        ...

    def announce(self, channels: Sequence[str], untold: Sequence[Untold], at: float) -> None:
        """Remember that each of these channels is to be told of these groups."""
        ...

    def untold(self, channel: str, limit: int) -> list[Untold]:
        """Groups of which a channel is to be told, and that nobody has muted or resolved since."""
        ...

    def note_channel(self, note: ChannelNote, told: Iterable[Group] = ()) -> None:
        """Keep what became of a channel, and that it was told of these groups."""
        ...

    def keep_channels(self, names: Sequence[str]) -> None:
        """Forget the channels that are none of these."""
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


class Admin(Protocol):
    """What keeps what people and programs decide, and who may."""

    def set_state(self, key: str, state: State, by: AuditEntry | None = None) -> bool:
        """Open, mute or resolve a group, and keep who did it; False where there is none."""
        ...

    def record(self, entry: AuditEntry) -> None:
        """Keep what somebody did."""
        ...

    def audit(self, subject: str | None = None, limit: int = 100) -> list[AuditEntry]:
        """What was done, the last first; to one subject, or to all."""
        ...

    def site_state(self, host: str) -> SiteState | None:
        """What the nodes of a site share; None where they share nothing yet."""
        ...

    def set_site_state(self, host: str, state: str, *, expected: int, by: str) -> SiteState | None:
        """Change what the nodes of a site share, where nobody else has done so meanwhile.

        Args:
            host: the site.
            state: JSON text.
            expected: the version that the writer has seen; 0 for none.
            by: the name of the token that changes it.

        Returns:
            What is kept now; None where another version than the expected one is there, and nothing was changed.
        """
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


class Storage(Sink, Reader, Jobs, Admin, Protocol):
    """Where the collector keeps what it takes.

    Every method may be called from any thread, and raises :class:`~dynpin.errors.StoreError` where the storage cannot
    be used: the message names it, the cause and what to do.
    """

    @property
    def name(self) -> str:
        """What people call it: the path of the file, or the server's address without the password."""
        ...

    @property
    def path(self) -> Path | None:
        """The file, where the storage is one on this machine."""
        ...

    def close(self) -> None:
        """Let go of the file or the server; the storage may be used again."""
        ...
