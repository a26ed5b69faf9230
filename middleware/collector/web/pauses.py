"""Pauses after wrong passwords: by source and account, so that one script does not lock out a whole network."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from math import ceil
from typing import TypeVar

from ..addresses import network

__all__ = ["PAUSE_S", "Pauses", "source_of"]

PAUSE_S = 900
# How many wrong passwords a source has for one account, and for all accounts together.
_OF_ACCOUNT, _OF_SOURCE = 10, 50
_MAX_REMEMBERED = 10_000
_Key = TypeVar("_Key", str, tuple[str, str])


class Pauses:
    """Counts wrong passwords.

    Args:
        clock: seconds since the epoch, UTC.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        # Two tables, so that a source that names many accounts cannot push out its own count.
        self._accounts: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()
        self._sources: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def left(self, source: str, account: str) -> int:
        """The seconds that this source must wait before it tries this account again; 0 if it need not wait."""
        now = self._clock()
        with self._lock:
            since, wrong = self._accounts.get((source, account), (now, 0))
            since_all, wrong_all = self._sources.get(source, (now, 0))
        waits = [
            since + PAUSE_S - now
            for since, wrong, most in ((since, wrong, _OF_ACCOUNT), (since_all, wrong_all, _OF_SOURCE))
            if wrong >= most and 0 <= now - since <= PAUSE_S
        ]
        return max(1, ceil(max(waits))) if waits else 0

    def wrong(self, source: str, account: str) -> None:
        """Count one wrong password."""
        with self._lock:
            _count(self._accounts, (source, account), self._clock())
            _count(self._sources, source, self._clock())


def _count(counts: OrderedDict[_Key, tuple[float, int]], key: _Key, now: float) -> None:
    since, wrong = counts.pop(key, (now, 0))
    counts[key] = (since, wrong + 1) if 0 <= now - since <= PAUSE_S else (now, 1)
    if len(counts) > _MAX_REMEMBERED:
        counts.popitem(last=False)


def source_of(address: str | None) -> str:
    """The source of an address: the IPv4 address, or the /64 network, which one subscriber of IPv6 has at least."""
    return network(address, 32, 64)
