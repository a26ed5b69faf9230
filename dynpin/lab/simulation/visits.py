"""Visits of many clients in one array, with the index at which each client's begin."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Floats", "Integers", "Visits", "ranges"]

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Visits:
    """The visits of some clients to one site, client by client, each client's in order.

    Attributes:
        horizon: the number of seconds that are played.
        starts: the index in `keys` at which each client's visits begin, and at the end the number of all visits.
        keys: ``client * stride + second`` for every visit, in ascending order.
    """

    horizon: int
    starts: Integers
    keys: Integers

    def __len__(self) -> int:
        return self.starts.size - 1

    @property
    def stride(self) -> int:
        """The factor of the client's number in `keys`."""
        return self.horizon + 1

    def index(self, clients: Integers, since: Integers | int) -> Integers:
        """The index of each client's first visit at or after a second; the end of its visits if there is none."""
        key: Integers = clients * self.stride + np.clip(since, 0, self.horizon)
        return np.searchsorted(self.keys, key).astype(np.int64, copy=False)

    def second(self, clients: Integers, index: Integers) -> Integers:
        """The second of a visit, by its index."""
        second: Integers = self.keys[index] - clients * self.stride
        return second

    @classmethod
    def of(cls, visits: Iterable[Sequence[int]], horizon: int) -> Visits:
        """The visits of each client, in ascending seconds below the horizon."""
        rows = [np.asarray(row, np.int64) for row in visits]
        starts = np.cumsum([0, *(row.size for row in rows)], dtype=np.int64)
        keys = [row + client * (horizon + 1) for client, row in enumerate(rows)]
        return cls(horizon, starts, np.concatenate(keys) if keys else np.empty(0, np.int64))


def ranges(first: Integers, end: Integers) -> Integers:
    """The whole numbers in each half-open range, one range after the other."""
    counts = end - first
    total = int(counts.sum())
    before = np.cumsum(counts) - counts
    numbers: Integers = np.arange(total, dtype=np.int64) + np.repeat(first - before, counts)
    return numbers
