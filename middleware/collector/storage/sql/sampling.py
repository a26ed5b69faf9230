"""Which bodies of a group are kept: the first ones, and then ever fewer, so that a burst of a million costs sixty."""

from __future__ import annotations

import math

__all__ = ["is_sampled"]

_FIRST = 20
# 27, 40, 60, 91 … up to more than there will ever be.
_LATER = frozenset(math.ceil(1.5**power) for power in range(8, 104))


def is_sampled(number: int) -> bool:
    """Whether the body of a report is kept that is the first, second … of its group since the sample began."""
    return number <= _FIRST or number in _LATER
