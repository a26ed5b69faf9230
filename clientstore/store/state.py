"""What has been read since the last write."""

from __future__ import annotations

from typing import Any, NamedTuple

from dynpin.hosts import KnownPinnedHost

__all__ = ["LookUp", "State"]


class State:
    """What was read since the last write by anybody. Another write makes another state, so that nothing stale stays.

    Attributes:
        cached: what has been read; a place for the owner of the database.
    """

    __slots__ = ("cached",)

    def __init__(self) -> None:
        self.cached: dict[str, Any] = {}


class LookUp(NamedTuple):
    """What the store says about a host at one moment.

    Attributes:
        known_host: the entry that applies, or None.
        now: the moment, by the store's clock.
        state: the same object for as long as nobody has written to the store.
    """

    known_host: KnownPinnedHost | None
    now: float
    state: State
