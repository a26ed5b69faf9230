"""What has been read since the last write."""

from __future__ import annotations

from typing import Any

__all__ = ["State"]


class State:
    """What was read since the last write by anybody. Another write makes another state, so that nothing stale stays.

    Attributes:
        cached: what has been read; a place for the owner of the database.
    """

    __slots__ = ("__weakref__", "cached")

    def __init__(self) -> None:
        self.cached: dict[str, Any] = {}
