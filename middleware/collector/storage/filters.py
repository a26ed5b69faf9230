"""Filters: what a person wants to see, as the URL has it.

``host=a.example&mode!=report-only&since=7d``: a name, ``=`` or ``!=``, and a value. Several values of one name are
joined by OR, different names by AND. ``!=`` excludes each of its values. A host may begin with ``*.`` for all its
subdomains.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlencode

__all__ = ["FIELDS", "MAX_VALUES", "BadFilter", "Filter", "Term", "seconds"]

# The names of filters, and their labels on the pages.
FIELDS = {
    "host": "Host",
    "noted_host": "Noted host",
    "mode": "Mode",
    "verdict": "Verdict",
    "state": "State",
    "pin": "Pin",
    "issuer": "Issuer",
    "token": "Token",
    "group": "Group",
}
_TIMES = ("since", "until")
_AGO = re.compile(r"([0-9]{1,5})([mhdw])")
_SECONDS = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}
MAX_VALUES = 10


class BadFilter(ValueError):
    """A filter cannot be read; the message says which part."""


@dataclass(frozen=True, slots=True)
class Term:
    """One condition: a field, a value, and whether it is negated."""

    field: str
    value: str
    negated: bool = False

    @property
    def pair(self) -> tuple[str, str]:
        """The term as a name and a value of a query string."""
        return (f"{self.field}!" if self.negated else self.field, self.value)


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter. Times stay as they were written, so that a shared ``since=7d`` means the reader's week."""

    terms: tuple[Term, ...] = ()
    since: str = ""
    until: str = ""

    @classmethod
    def parse(cls, pairs: Iterable[tuple[str, str]], now: float) -> Filter:
        """Read the pairs of a query string. Names that are not filters are ignored.

        Raises:
            BadFilter: if a time cannot be read, or one name has too many values.
        """
        terms: dict[Term, None] = {}
        values: Counter[str] = Counter()
        times = {"since": "", "until": ""}
        for name, value in pairs:
            base = name.removesuffix("!")
            if base in FIELDS:
                values[name] += 1
                if values[name] > MAX_VALUES:
                    raise BadFilter(f"more than {MAX_VALUES} values of {name}")
                if value:
                    terms[Term(base, value[:300], name != base)] = None
            elif name in _TIMES and value:
                seconds(value, now)
                times[name] = value
        return cls(tuple(terms), times["since"], times["until"])

    def __bool__(self) -> bool:
        return bool(self.terms or self.since or self.until)

    def query(self, *more: tuple[str, str]) -> str:
        """The filter as a query string, followed by more pairs."""
        pairs = [term.pair for term in self.terms]
        pairs += [(name, value) for name, value in (("since", self.since), ("until", self.until)) if value]
        return urlencode([*pairs, *more], safe="!*")

    def with_term(self, term: Term) -> Filter:
        """A copy with one more condition."""
        return Filter((*(own for own in self.terms if own != term), term), self.since, self.until)

    def at(self, *, since: str = "", until: str = "") -> Filter:
        """A copy with other times."""
        return Filter(self.terms, since, until)

    def without(self, term: Term) -> Filter:
        """A copy without this condition."""
        return Filter(tuple(own for own in self.terms if own != term), self.since, self.until)


def seconds(text: str, now: float) -> float:
    """A time as people write it (``7d``, ``24h``, ``2026-05-01``, RFC 3339) as seconds since the epoch, UTC.

    Raises:
        BadFilter: if it is not a time.
    """
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return now - int(ago[1]) * _SECONDS[ago[2]]
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise BadFilter(f"{text[:40]!r} is not a time; write 24h, 7d, 2026-05-01 or 2026-05-01T12:00Z") from None
