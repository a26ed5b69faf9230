"""The interface of a storage, in parts: for the intake, the pages, the worker, and the administration."""

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
    PendingAlert,
    Pruned,
    Retention,
    Rise,
    SiteState,
    State,
    Step,
    StoredReport,
    Token,
    Triaged,
)

__all__ = ["Admin", "Jobs", "Reader", "Sink", "Storage"]


class Sink(Protocol):
    """Stores the reports that the intake accepted."""

    def add(self, arrivals: Sequence[Arrival], outcomes: Mapping[Counted, int]) -> bool:
        """Store reports and counts. They survive a loss of power once this returns.

        Args:
            arrivals: the reports.
            outcomes: the intake's answers, and how often it gave each.

        Returns:
            True if a group of these reports waits for its verdict.
        """
        ...

    def probe(self, patience: float) -> None:
        """Write something durably; wait for a lock for `patience` seconds at most.

        Raises:
            StoreError: if reports could not be stored now; the message says why.
        """
        ...

    def accepted(self, hour: int) -> dict[str, int]:
        """How many reports all nodes together accepted in an hour (hours since the epoch), by token."""
        ...


class Reader(Protocol):
    """Answers questions about reports."""

    def reports(self, wanted: Filter, *, cursor: str | None = None, limit: int = 50) -> Page[StoredReport]:
        """The reports that match a filter, newest first."""
        ...

    def groups(
        self, wanted: Filter, *, cursor: str | None = None, limit: int = 50, newest: bool = False
    ) -> Page[Group]:
        """The groups that match a filter, by `last_seen`, newest first; with `newest` by `first_seen`."""
        ...

    def group(self, key: str) -> Group | None:
        """One group by its key."""
        ...

    def activity(self, wanted: Filter, since: int, until: int, step: Step = 1) -> list[tuple[int, str, int]]:
        """Hour, mode and number of reports; the hours (since the epoch) run from `since` to `until`, without it.

        With a step of 24 the same for days (UTC), each with its first hour; `since` and `until` must be midnights.
        """
        ...

    def tally(self, wanted: Filter, column: Column, limit: int = 10) -> list[tuple[str, int, int]]:
        """Value, groups and reports, for each value of a column of the groups; most reports first, then last seen."""
        ...

    def agents(self, group: Group) -> list[tuple[str, int]]:
        """The user agents of a group and how many reports each sent, most first."""
        ...

    def channels(self) -> list[ChannelNote]:
        """The state of each channel of alerts, in the order of their names."""
        ...

    def outcomes(self, since: int) -> list[tuple[str, str, int]]:
        """The intake's answers since an hour: outcome, reason and how often, most first."""
        ...


class Jobs(Protocol):
    """Gives the worker its work."""

    def untriaged(self, limit: int, judged_with: str = "") -> list[tuple[Group, str, float]]:
        """Groups without a verdict, or judged with other keys; each with a report's body and when that report came."""
        ...

    def authorities(self, pins: Sequence[str]) -> dict[str, str]:
        """The names of the CAs whose keys have these pins, from earlier reports."""
        ...

    def set_verdicts(self, judged: Iterable[tuple[Group, Triaged]]) -> None:
        """Store the verdicts that triage found."""
        ...

    def claim(self, work: str, holder: str) -> bool:
        """Take or extend the lease of a kind of work for `LEASE_S` seconds. False if another worker has it."""
        ...

    def release(self, holder: str) -> None:
        """End all leases of a holder."""
        ...

    def unannounced(self, limit: int) -> list[Group]:
        """Open groups with a verdict that no alert has announced."""
        ...

    def rising(self, hour: int, factor: float, at_least: int) -> list[Rise]:
        """Groups with at least `factor` times as many reports in this hour as in an average hour of the day before."""
        ...

    def announce(self, channels: Sequence[str], alerts: Sequence[PendingAlert], at: float) -> None:
        """Store alerts that each of these channels has still to take."""
        ...

    def pending_alerts(self, channel: str, limit: int) -> list[PendingAlert]:
        """Alerts that a channel has still to take, possible attacks first; not those muted or resolved since."""
        ...

    def note_channel(self, note: ChannelNote, told: Iterable[Group] = ()) -> None:
        """Store the state of a channel, and that it was told of these groups."""
        ...

    def keep_channels(self, names: Sequence[str]) -> None:
        """Delete all channels but these."""
        ...

    def fact(self, name: str) -> float | None:
        """The number that is stored under a name, or None."""
        ...

    def set_fact(self, name: str, value: float) -> None:
        """Store a number under a name."""
        ...

    def prune(self, retention: Retention) -> Pruned:
        """Delete what the retention does not keep."""
        ...


class Admin(Protocol):
    """Stores what people and programs decide, and who may decide."""

    def set_state(self, key: str, state: State, by: AuditEntry | None = None) -> bool:
        """Open, mute or resolve a group, and store who did it. False if there is no such group."""
        ...

    def record(self, entry: AuditEntry) -> None:
        """Store what somebody did."""
        ...

    def audit(self, subject: str | None = None, limit: int = 100) -> list[AuditEntry]:
        """What was done, newest first; to one subject, or to all."""
        ...

    def shared_time(self) -> float:
        """Seconds since the epoch, by one clock for all nodes: that of the server, or of the machine with the file."""
        ...

    def site_state(self, host: str) -> SiteState | None:
        """The state that the nodes of a site share; None if they share nothing yet."""
        ...

    def set_site_state(self, host: str, state: str, *, expected: int, by: str) -> SiteState | None:
        """Change the state that the nodes of a site share, if nobody else has changed it in the meantime.

        Args:
            host: the site.
            state: JSON text.
            expected: the version that the writer has read; 0 if there was none.
            by: the name of the token that changes it.

        Returns:
            The new state; None if the stored version is not the expected one. Nothing was changed then.
        """
        ...

    def tokens(self) -> list[Token]:
        """Every token, even if it was revoked."""
        ...

    def add_token(self, token: Token) -> None:
        """Store a token, and replace one that exists."""
        ...

    def name_tokens(self, tokens: Iterable[str], at: float) -> None:
        """Store that a collector started with these tokens in its settings."""
        ...

    def named_tokens(self) -> dict[str, float]:
        """The tokens in the settings of collectors, and when a collector last started with them."""
        ...

    def revoke_token(self, token: str) -> bool:
        """Revoke a token. False if there is no such token, or it was revoked before."""
        ...

    def add_api_token(self, token: APIToken) -> bool:
        """Store a token of the API. False if a token of this name is still valid."""
        ...

    def api_token(self, digest: str) -> APIToken | None:
        """The token of the API with this hash, even if it has ended."""
        ...

    def api_tokens(self) -> list[APIToken]:
        """Every token of the API, oldest first, even if it has ended."""
        ...

    def use_api_token(self, digest: str, at: float) -> None:
        """Store when a token of the API was last used."""
        ...

    def revoke_api_token(self, name: str) -> bool:
        """Revoke a token of the API. False if there is no such token, or it was revoked before."""
        ...

    def add_session(self, identity: str, name: str, expires_at: float) -> None:
        """Store a session, and delete the sessions that have ended."""
        ...

    def session(self, identity: str) -> str | None:
        """The name of a session; None if there is none, or it has ended."""
        ...

    def end_session(self, identity: str) -> None:
        """Delete a session."""
        ...

    def secret(self) -> str:
        """A random text of this storage."""
        ...


class Storage(Sink, Reader, Jobs, Admin, Protocol):
    """The database of the collector.

    Every method may be called from any thread. It raises :class:`~dynpin.errors.StoreError` if the storage cannot be
    used; the message names the storage, the cause and what to do.
    """

    @property
    def name(self) -> str:
        """The name for people: the path of the file, or the server's address without the password."""
        ...

    @property
    def path(self) -> Path | None:
        """The path of the file, or None if the storage is a server."""
        ...

    def close(self) -> None:
        """Close every connection; the storage opens new ones when it is used again."""
        ...
