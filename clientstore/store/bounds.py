"""How many hosts a store notes: an attacker fills only the share of his own domain (RFC 7469 §4.4).

Firefox evicted entries by a score, so a page with a thousand host names could push the real pins out. This store never
evicts a pin that has not expired. It removes expired entries first. If there is still no room, it refuses the new host.

The owner of a name can create any number of names below it, and none beside it. So each name, from the registrable
domain down, has a limit on the hosts below it. Half of that limit is reserved for the hosts one label below.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from dynpin.counts import counted
from dynpin.hosts import canonical_host, superdomains
from dynpin.report import FIRST_SECOND, LAST_SECOND

from .numbers import MOST_HOSTS, whole_number
from .table import Select, reversed_name

if TYPE_CHECKING:
    from publicsuffixlist import PublicSuffixList

__all__ = ["Bounds", "Refusal", "bounds_of", "refusals", "registrable_domain"]

_EVERYWHERE = ""
_NOTED = "source = 'header' AND origin IS NULL"
# Does not count beyond the limit.
_COUNT = "SELECT count(*) FROM (SELECT 1 FROM hosts INDEXED BY noted"
_WITHIN = f"WHERE {_NOTED} AND reversed >= ? AND reversed < ?"
_MAX_REFUSALS = 100
# How often a refusal is recorded for one scope, and how often a full store is cleaned, in seconds.
_ONCE = 3600.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """A limit because of which a host was not noted.

    Attributes:
        scope: the name below which the hosts were counted; empty for all hosts of the store.
        host: the last host that was refused.
        bound: how many hosts may be noted there.
        refused_at: when, seconds since the epoch, UTC, to the hour.
    """

    scope: str
    host: str
    bound: int
    refused_at: float

    def __str__(self) -> str:
        where = f"below {self.scope}" if self.scope else "in all"
        most = counted(self.bound, "host")
        return f"{self.host} was not noted: the store notes at most {most} {where}, and evicts none of them"


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many hosts a store notes from headers. Pins that a person sets or imports do not count.

    Attributes:
        in_all: for the whole store.
        per_domain: below one registrable domain. Below any other name: a tenth of that.
        own_domains: domains where only `in_all` counts, since no stranger can create names there.
    """

    in_all: int
    per_domain: int
    own_domains: frozenset[str]

    def refusal(self, connection: sqlite3.Connection, host: str, now: float) -> Refusal | None:
        """Why a new host is not noted, or None. Call it inside the transaction that would note the host."""
        for scope, bound in self._scopes(host):
            if self._is_full(connection, scope, host, bound):
                _remove_expired(connection, scope, now)
                if self._is_full(connection, scope, host, bound):
                    refusal = Refusal(scope, host, bound, now)
                    _keep(connection, refusal)
                    return refusal
        return None

    def _scopes(self, host: str) -> Iterator[tuple[str, int]]:
        yield _EVERYWHERE, self.in_all
        domain = registrable_domain(host)
        above = superdomains(host)
        if host == domain or not self.own_domains.isdisjoint((host, *above)):
            return
        for name in reversed(above[: above.index(domain) + 1] if domain in above else ()):
            yield name, self.per_domain if name == domain else max(1, self.per_domain // 10)

    @staticmethod
    def _is_full(connection: sqlite3.Connection, scope: str, host: str, bound: int) -> bool:
        first, last = _below(scope)
        ((found,),) = connection.execute(f"{_COUNT} {_WITHIN} LIMIT ?)", (first, last, bound)).fetchall()
        if found >= bound:
            return True
        half = max(1, bound // 2)
        if scope == _EVERYWHERE or host.count(".") == scope.count(".") + 1 or found < half:
            return False
        # Count the names more than one label below. For "test.bank.a.b." the part below the scope is "a.b.": its first
        # dot is not its last character.
        ((deeper,),) = connection.execute(
            f"{_COUNT} {_WITHIN} AND instr(substr(reversed, ?), '.') < length(substr(reversed, ?)) LIMIT ?)",
            (first, last, len(first), len(first), bound),
        ).fetchall()
        return bool(deeper >= half)


def bounds_of(max_hosts: object, max_hosts_per_domain: object, own_domains: Iterable[str]) -> Bounds:
    """The options of a store, checked.

    Raises:
        ValueError: for a limit that is not a whole number.
        InvalidHost: for a domain that has no canonical form.
        TypeError: for one text in place of several domains.
    """
    if isinstance(own_domains, str):
        raise TypeError(f"own_domains is a list of names, not one text: own_domains=[{own_domains!r}]")
    return Bounds(
        whole_number(max_hosts, "max_hosts", 0, MOST_HOSTS),
        whole_number(max_hosts_per_domain, "max_hosts_per_domain", 0, MOST_HOSTS),
        frozenset(map(canonical_host, own_domains)),
    )


def _remove_expired(connection: sqlite3.Connection, scope: str, now: float) -> None:
    if scope == _EVERYWHERE:
        # The DELETE reads every host, so it runs at most once an hour, even in a flood.
        purged = connection.execute("SELECT value FROM facts WHERE name = 'purged_at'").fetchall()
        at = purged[0][0] if purged else None
        if isinstance(at, float) and 0 <= now - at < _ONCE:  # anything else is damage
            return
        connection.execute("INSERT OR REPLACE INTO facts VALUES ('purged_at', ?)", (float(now),))
    connection.execute(
        f"DELETE FROM hosts {_WITHIN} AND max(expires_at, ifnull(recovery_until, 0)) < ?",  # noqa: S608 - a constant
        (*_below(scope), now),
    )


def _below(scope: str) -> tuple[str, str]:
    """The first reversed name below a scope, and the first one after all of them. The scope itself is not included.

    The first name is one character longer than the scope; :meth:`Bounds._is_full` relies on that.
    """
    if scope == _EVERYWHERE:
        return "", "\U0010ffff"
    start = reversed_name(scope)
    return f"{start}\0", f"{start[:-1]}/"  # "/" follows "." in ASCII


def _keep(connection: sqlite3.Connection, refusal: Refusal) -> None:
    """Record the refusal for a person to read, once an hour for each scope: a flood must not write all the time."""
    connection.execute(
        "INSERT INTO refusals VALUES (?, ?, ?, ?) ON CONFLICT (scope) DO UPDATE"
        " SET host = excluded.host, bound = excluded.bound, refused_at = excluded.refused_at"
        " WHERE abs(refused_at - excluded.refused_at) >= ?",
        (refusal.scope, refusal.host, refusal.bound, refusal.refused_at, _ONCE),
    )
    connection.execute(
        "DELETE FROM refusals WHERE scope NOT IN (SELECT scope FROM refusals ORDER BY refused_at DESC LIMIT ?)",
        (_MAX_REFUSALS,),
    )


def refusals(select: Select) -> list[Refusal]:
    """The refusals that were recorded, the newest first; without damaged rows."""
    rows = select(
        "SELECT scope, host, bound, refused_at FROM refusals WHERE typeof(scope) = 'text' AND typeof(host) = 'text'"
        " AND typeof(bound) = 'integer' AND refused_at BETWEEN ? AND ? ORDER BY refused_at DESC",
        (FIRST_SECOND, LAST_SECOND),
    )
    return [Refusal(*row) for row in rows]


_suffixes: PublicSuffixList | None = None


@lru_cache(maxsize=1024)
def registrable_domain(host: str) -> str:
    """The public suffix of a host plus one label; the host itself if it has no suffix."""
    # Imported here, for new hosts only: reading the list of public suffixes takes longer than a look-up.
    from publicsuffixlist import PublicSuffixList  # noqa: PLC0415

    global _suffixes  # noqa: PLW0603 - read once a process
    if _suffixes is None:
        _suffixes = PublicSuffixList()
    return _suffixes.privatesuffix(host) or host
