"""The limits of the intake: sizes, and reports per hour for a token, for a source and in total."""

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

# How many sources are counted in one hour. All others share one budget, so that many addresses cannot fill the memory.
_MAX_SOURCES = 50_000


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of the intake. Reports beyond them are dropped and counted, never queued.

    Attributes:
        per_token: reports in an hour for one token.
        per_source: reports in an hour from one source: a network, or an address (see :class:`.SourceAddress`).
        in_all: reports in an hour in total.
        body: bytes of the body of one request.
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
    """Counts the reports of the current hour: of this process, and for a token those of other processes too."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._hour: int = -1
        self._all = 0
        self._tokens: Counter[str] = Counter()
        self._sources: Counter[str] = Counter()
        self._others: Mapping[str, int] = {}  # reports that other processes accepted, by token
        self._lock = threading.Lock()

    def exceeded(self, token: str, source: str, now: float) -> str | None:
        """Count one report. The name of the limit that it exceeds, or None."""
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
        """Set how many reports other processes accepted in an hour, by token."""
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
    """The counts of answers that are not stored yet."""

    def __init__(self) -> None:
        self._counts: Counter[Counted] = Counter()
        self._lock = threading.Lock()

    def count(self, counted: Counted, number: int = 1) -> None:
        """Count an answer."""
        with self._lock:
            self._counts[counted] += number

    def take(self) -> Mapping[Counted, int]:
        """All counts since the last call. The caller must store them."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        return counts

    def give_back(self, counts: Mapping[Counted, int]) -> None:
        """Add counts again that could not be stored."""
        with self._lock:
            self._counts.update(counts)


class SourceAddress(NamedTuple):
    """How many bits of a client's address are stored, and count as one source: for IPv4, and for IPv6."""

    ipv4: int = 24
    ipv6: int = 48

    @classmethod
    def parse(cls, text: str) -> SourceAddress:
        """Read ``whole``, ``/24`` (for IPv4, with 48 bits for IPv6) or ``/24,/48``.

        Raises:
            ValueError: for anything else.
        """
        if text == "whole":
            return cls(32, 128)
        found = re.fullmatch(r"/(\d{1,2})(?:, */(\d{1,3}))?", text)
        bits = cls(int(found[1]), int(found[2] or cls().ipv6)) if found else None
        if bits is None or bits.ipv4 > 32 or bits.ipv6 > 128:
            raise ValueError(f"{text!r} is not a part of an address; write whole, /24, or /24,/48 for IPv4 and IPv6")
        return bits


SOURCE_ADDRESS = SourceAddress()


@lru_cache(maxsize=4096)
def truncated(address: str | None, bits: SourceAddress = SOURCE_ADDRESS) -> str:
    """The source of a client's address: by default its /24 or /48 network, which does not identify a person."""
    return network(address, *bits)
