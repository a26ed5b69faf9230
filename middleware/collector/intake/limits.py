"""How much the intake takes: sizes, and reports per hour of a token, of a source and in all."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from ..addresses import network
from ..storage import HOUR, Counted

__all__ = ["SOURCE_ADDRESS", "Ledger", "Limits", "Meter", "SourceAddress", "truncated"]

# How many sources are told apart in one hour; the rest share one budget, so that a flood of addresses fills no memory.
_MAX_SOURCES = 50_000


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of the intake. What is beyond them is dropped and counted, never queued.

    Attributes:
        per_token: reports in an hour for one token.
        per_source: reports in an hour from one source: a network, or an address (see :class:`.SourceAddress`).
        in_all: reports in an hour.
        body: bytes of one request.
        body_seconds: how long the body of a request may take to arrive.
        batch: reports in one envelope of the Reporting API.
        pending: reports that wait for the disk.
    """

    per_token: int = 20_000
    per_source: int = 1_000
    in_all: int = 100_000
    body: int = 262_144
    body_seconds: float = 10
    batch: int = 50
    pending: int = 5_000


class Meter:
    """Counts what was let through in the current hour: by this process, and for a token by all others too."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._hour: int = -1
        self._all = 0
        self._tokens: Counter[str] = Counter()
        self._sources: Counter[str] = Counter()
        self._others: Mapping[str, int] = {}  # what other processes accepted, by token
        self._lock = threading.Lock()

    def exceeded(self, token: str, source: str, now: float) -> str | None:
        """Charge one report; the name of the limit that forbids it, or None."""
        with self._lock:
            hour = int(now // HOUR)
            self._begin(hour)
            if source not in self._sources and len(self._sources) >= _MAX_SOURCES:
                source = ""
            if self._sources[source] >= self.limits.per_source:
                return "limit-source"
            if self._tokens[token] + self._others.get(token, 0) >= self.limits.per_token:
                return "limit-token"
            if self._all >= self.limits.in_all:
                return "limit-in-all"
            self._all += 1
            self._tokens[token] += 1
            self._sources[source] += 1
            return None

    def learn(self, hour: int, others: Mapping[str, int]) -> None:
        """Learn what other processes accepted in an hour, by token."""
        with self._lock:
            if hour == self._hour:
                self._others = others

    def _begin(self, hour: int) -> None:
        if hour != self._hour:
            self._hour = hour
            self._all = 0
            self._others = {}
            self._tokens.clear()
            self._sources.clear()


class Ledger:
    """What the intake answered and has not written down yet."""

    def __init__(self) -> None:
        self._counts: Counter[Counted] = Counter()
        self._lock = threading.Lock()

    def count(self, counted: Counted, number: int = 1) -> None:
        """Add to one kind of answer."""
        with self._lock:
            self._counts[counted] += number

    def take(self) -> Mapping[Counted, int]:
        """All counts since the last time, which are the caller's to store now."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        return counts

    def give_back(self, counts: Mapping[Counted, int]) -> None:
        """Counts that could not be stored."""
        with self._lock:
            self._counts.update(counts)


class SourceAddress(NamedTuple):
    """How much of a client's address is kept, and counts as one source: so many bits of IPv4, and of IPv6."""

    ipv4: int = 24
    ipv6: int = 48

    @classmethod
    def parse(cls, text: str) -> SourceAddress:
        """Read ``whole``, ``/24`` (of IPv4, and 48 bits of IPv6) or ``/24,/48``.

        Raises:
            ValueError: for anything else.
        """
        if text == "whole":
            return cls(32, 128)
        found = re.fullmatch(r"/(\d{1,2})(?:, */(\d{1,3}))?", text)
        bits = cls(int(found[1]), int(found[2] or cls().ipv6)) if found else None
        if bits is None or bits.ipv4 > 32 or bits.ipv6 > 128:
            raise ValueError(f"{text!r} is no part of an address; write whole, /24, or /24,/48 for IPv4 and IPv6")
        return bits


SOURCE_ADDRESS = SourceAddress()


@lru_cache(maxsize=4096)
def truncated(address: str | None, bits: SourceAddress = SOURCE_ADDRESS) -> str:
    """The source that a client address belongs to: by default its /24 or /48, which is no person's address."""
    return network(address, *bits)
