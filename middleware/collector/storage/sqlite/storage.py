"""The storage on SQLite: one connection writes, and each reader has one to itself while it reads."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from dynpin.errors import StoreError

from ..access import APIToken, AuditEntry
from ..filters import Filter
from ..interface import (
    Arrival,
    Column,
    Counted,
    Group,
    Page,
    Pruned,
    Retention,
    Rise,
    SiteState,
    State,
    StoredReport,
    Token,
    Triaged,
)
from . import access, jobs, queries, sites
from .batches import add
from .connections import Connections
from .pruning import prune
from .schema import open_database

__all__ = ["SQLiteStorage"]


class SQLiteStorage:
    """The collector's reports in one SQLite file that threads and processes share safely.

    Args:
        path: the file; made with mode 0600.
        clock: seconds since the epoch, UTC; filters such as ``since=7d`` count from it.

    Raises:
        StoreError: where the file cannot be used; the message says what to do.
    """

    def __init__(self, path: str | os.PathLike[str], *, clock: Callable[[], float] = time.time) -> None:
        self.path = Path(path)
        self.clock = clock
        open_database(self.path)
        self._connections = Connections(self.path)

    # -- writing ------------------------------------------------------------------------------------------------

    def add(self, arrivals: Sequence[Arrival], outcomes: Mapping[Counted, int]) -> bool:
        """Store reports and counts in one transaction; see :class:`~dynpin.middleware.collector.storage.Storage`."""
        with self.writing() as db:
            return add(db, arrivals, outcomes)

    def writing(self) -> AbstractContextManager[sqlite3.Connection]:
        """A transaction on the one connection that writes; it is on the disk when it ends."""
        return self._connections.writing()

    def reading(self) -> AbstractContextManager[sqlite3.Connection]:
        """A connection for reading, which nobody else has meanwhile."""
        return self._connections.reading()

    def probe(self, patience: float) -> None:
        """Write something durably; others are waited for no longer than so many seconds."""
        self._connections.probe(self.clock(), patience)

    def _rows(self, sql: str, parameters: Sequence[object] = ()) -> list[sqlite3.Row]:
        with self.reading() as db:
            return db.execute(sql, parameters).fetchall()

    def close(self) -> None:
        """Close every connection; the storage opens new ones when it is used again."""
        self._connections.close()

    # -- reading ------------------------------------------------------------------------------------------------

    def reports(self, wanted: Filter, *, cursor: str | None = None, limit: int = 50) -> Page[StoredReport]:
        """The reports that a filter wants, newest first."""
        with self.reading() as db:
            return queries.reports(db, wanted, self.clock(), cursor, limit)

    def groups(
        self, wanted: Filter, *, cursor: str | None = None, limit: int = 50, newest: bool = False
    ) -> Page[Group]:
        """The groups that a filter wants, the last seen first, or the first seen last."""
        with self.reading() as db:
            return queries.groups(db, wanted, self.clock(), cursor, limit, newest=newest)

    def group(self, key: str) -> Group | None:
        """One group by its key."""
        with self.reading() as db:
            return queries.group(db, key)

    def activity(self, wanted: Filter, since: int, until: int) -> list[tuple[int, str, int]]:
        """Hour, mode and number of reports, for the hours from `since` up to and without `until`."""
        with self.reading() as db:
            return queries.activity(db, wanted, self.clock(), since, until)

    def tally(self, wanted: Filter, column: Column, limit: int = 10) -> list[tuple[str, int, int]]:
        """Value, number of groups and number of reports, by a column of the groups, most reports first."""
        with self.reading() as db:
            return queries.tally(db, wanted, self.clock(), column, limit)

    def agents(self, group: Group) -> list[tuple[str, int]]:
        """User agents of a group and how many reports each sent, most first."""
        rows = self._rows(
            "SELECT user_agent, reports FROM agents WHERE group_id = ? ORDER BY reports DESC", (group.id,)
        )
        return [(row["user_agent"], row["reports"]) for row in rows]

    def outcomes(self, since: int) -> list[tuple[str, str, int]]:
        """Outcome, reason and number of what the intake answered since an hour, most first."""
        rows = self._rows(
            "SELECT outcome, reason, sum(count) AS number FROM outcomes WHERE hour >= ? GROUP BY outcome, reason "
            "ORDER BY number DESC",
            (since,),
        )
        return [(row["outcome"], row["reason"], row["number"]) for row in rows]

    def accepted(self, hour: int) -> dict[str, int]:
        """Reports that were accepted in an hour by all nodes together, by token."""
        rows = self._rows(
            "SELECT token, sum(count) AS number FROM outcomes WHERE hour = ? AND outcome = 'accepted' GROUP BY token",
            (hour,),
        )
        return {row["token"]: row["number"] for row in rows}

    def site_state(self, host: str) -> SiteState | None:
        """What the nodes of a site share; None where they share nothing yet."""
        with self.reading() as db:
            return sites.site_state(db, host)

    def set_site_state(self, host: str, state: str, *, expected: int, by: str) -> SiteState | None:
        """Change what the nodes of a site share; None where another version than the expected one is there."""
        with self.writing() as db:
            return sites.set_site_state(db, host, state, expected=expected, by=by, now=self.clock())

    def tokens(self) -> list[Token]:
        """Every token, the revoked ones too, oldest first."""
        rows = self._rows("SELECT * FROM tokens ORDER BY created_at, token")
        return [
            Token(row["token"], row["name"], queries.texts(row["hosts"]), row["created_at"], row["revoked_at"])
            for row in rows
        ]

    # -- triage -------------------------------------------------------------------------------------------------

    def untriaged(self, limit: int, judged_with: str = "") -> list[tuple[Group, str, float]]:
        """Groups without a verdict or with one of other keys, each with the body of a report and when that came."""
        with self.reading() as db:
            return queries.untriaged(db, limit, judged_with)

    def authorities(self, pins: Sequence[str]) -> dict[str, str]:
        """The names of CAs whose keys have these pins, as earlier reports showed them."""
        with self.reading() as db:
            return jobs.authorities(db, pins)

    def set_verdicts(self, judged: Iterable[tuple[Group, Triaged]]) -> None:
        """Store what triage found, in one transaction."""
        with self.writing() as db:
            jobs.set_verdicts(db, judged)

    def claim(self, work: str, holder: str) -> bool:
        """Take or prolong the lease of a kind of work; False where another has it."""
        with self.writing() as db:
            return jobs.claim(db, work, holder, self.clock())

    def release(self, holder: str) -> None:
        """Give back all leases of a holder."""
        with self.writing() as db:
            db.execute("DELETE FROM leases WHERE holder = ?", (holder,))

    # -- what people decide -------------------------------------------------------------------------------------

    def set_state(self, key: str, state: State, by: AuditEntry | None = None) -> bool:
        """Open, mute or resolve a group, and keep who did it; False where there is none."""
        with self.writing() as db:
            changed = db.execute(
                "UPDATE groups SET state = ?, state_at = ? WHERE key = ?", (state, self.clock(), key)
            ).rowcount
            if changed and by is not None:
                access.record(db, by)
        return changed > 0

    def record(self, entry: AuditEntry) -> None:
        """Keep what somebody did."""
        with self.writing() as db:
            access.record(db, entry)

    def audit(self, subject: str | None = None, limit: int = 100) -> list[AuditEntry]:
        """What was done, the last first; to one subject, or to all."""
        with self.reading() as db:
            return access.audit(db, subject, limit)

    def add_api_token(self, token: APIToken) -> bool:
        """Keep a token of the API; False where one of this name may still be used."""
        with self.writing() as db:
            return access.add_api_token(db, token)

    def api_token(self, digest: str) -> APIToken | None:
        """The token of the API with this hash, ended or not."""
        with self.reading() as db:
            return access.api_token(db, digest)

    def api_tokens(self) -> list[APIToken]:
        """Every token of the API, ended or not, oldest first."""
        with self.reading() as db:
            return access.api_tokens(db)

    def use_api_token(self, digest: str, at: float) -> None:
        """Remember when a token of the API was used last."""
        with self.writing() as db:
            db.execute("UPDATE api_tokens SET used_at = ? WHERE digest = ?", (at, digest))

    def revoke_api_token(self, name: str) -> bool:
        """Let a token of the API be used no more; False where there is none that could be."""
        with self.writing() as db:
            return access.revoke_api_token(db, name, self.clock())

    def add_token(self, token: Token) -> None:
        """Keep a token; one that exists is replaced."""
        with self.writing() as db:
            db.execute(
                "INSERT OR REPLACE INTO tokens VALUES (?, ?, ?, ?, ?)",
                (token.token, token.name, json.dumps(token.hosts), token.created_at, token.revoked_at),
            )

    def name_tokens(self, tokens: Iterable[str], at: float) -> None:
        """Remember that a collector started with these tokens in its settings."""
        with self.writing() as db:
            db.executemany("INSERT OR REPLACE INTO named_tokens VALUES (?, ?)", [(token, at) for token in tokens])

    def named_tokens(self) -> dict[str, float]:
        """Tokens of the settings of collectors, and when one started with them last."""
        return {row["token"]: row["named_at"] for row in self._rows("SELECT * FROM named_tokens ORDER BY token")}

    def revoke_token(self, token: str) -> bool:
        """Let a token be used no more; False where there is none that could be."""
        with self.writing() as db:
            changed = db.execute(
                "UPDATE tokens SET revoked_at = ? WHERE token = ? AND revoked_at IS NULL", (self.clock(), token)
            ).rowcount
        return changed > 0

    def add_session(self, identity: str, name: str, expires_at: float) -> None:
        """Keep a session, and forget those that ended."""
        with self.writing() as db:
            access.add_session(db, identity, name, expires_at, self.clock())

    def session(self, identity: str) -> str | None:
        """The name of a session that is there and has not ended."""
        with self.reading() as db:
            return access.session(db, identity, self.clock())

    def end_session(self, identity: str) -> None:
        """Forget a session."""
        with self.writing() as db:
            db.execute("DELETE FROM sessions WHERE id = ?", (identity,))

    def secret(self) -> str:
        """A random text that belongs to this file, made when it is first asked for."""
        with self.writing() as db:
            db.execute("INSERT OR IGNORE INTO facts VALUES ('secret', ?)", (secrets.token_hex(32),))
            (value,) = db.execute("SELECT value FROM facts WHERE name = 'secret'").fetchone()
        return str(value)

    # -- alerts -------------------------------------------------------------------------------------------------

    def unannounced(self, limit: int) -> list[Group]:
        """Judged, open groups that no alert has told of."""
        with self.reading() as db:
            return queries.unannounced(db, limit)

    def rising(self, hour: int, factor: float, at_least: int) -> list[Rise]:
        """Groups, but for the muted, that sent so many more reports in this hour than on average in the day before."""
        with self.reading() as db:
            return queries.rising(db, hour, factor, at_least)

    def announce(self, groups: Iterable[Group], at: float) -> None:
        """Remember that an alert has told of these groups."""
        with self.writing() as db:
            db.executemany("UPDATE groups SET alerted_at = ? WHERE id = ?", [(at, group.id) for group in groups])

    def fact(self, name: str) -> float | None:
        """A number kept under a name."""
        rows = self._rows("SELECT value FROM facts WHERE name = ?", (name,))
        return float(rows[0]["value"]) if rows else None

    def set_fact(self, name: str, value: float) -> None:
        """Keep a number under a name."""
        with self.writing() as db:
            db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    # -- retention ----------------------------------------------------------------------------------------------

    def prune(self, retention: Retention) -> Pruned:
        """Delete what is not to be kept, in small transactions."""

        @contextlib.contextmanager
        def writing() -> Generator[sqlite3.Connection]:
            # What is in the file already needs no place in the log: then a deletion makes nothing grow, and works
            # on a full disk too. Where others read just now, it is moved with the next one.
            with contextlib.suppress(StoreError), self.reading() as db:
                db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            with self.writing() as db:
                yield db

        return prune(writing, retention, self.clock())
