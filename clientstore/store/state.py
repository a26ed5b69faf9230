"""The state of a database: what was read since the last write."""

from __future__ import annotations

from typing import Any, NamedTuple

from dynpin.hosts import KnownPinnedHost

__all__ = ["LookUp", "State"]


class State:
    """What was read since the last write by anybody. Each write makes a new state, so nothing stale stays.

    Attributes:
        cached: a cache for the owner of the database.
    """

    __slots__ = ("cached",)

    def __init__(self) -> None:
        self.cached: dict[str, Any] = {}


class LookUp(NamedTuple):
    """What the store says about a host at one moment.

    Attributes:
        known_host: the entry that applies, or None.
        now: the moment, by the store's clock.
        state: the same object until somebody writes to the store.
    """

    known_host: KnownPinnedHost | None
    now: float
    state: State
