"""What is kept of a group: the first bodies, and then ever fewer, so that a burst of a million costs sixty."""

from __future__ import annotations

import math

__all__ = ["MAX_AGENTS", "OTHER_AGENTS", "is_sampled"]

# So many user agents of one group are told apart; a sender that varies its own fills no table.
MAX_AGENTS, OTHER_AGENTS = 20, "(others)"

_FIRST = 20
# 27, 40, 60, 91 … up to more than there will ever be.
_LATER = frozenset(math.ceil(1.5**power) for power in range(8, 104))


def is_sampled(number: int) -> bool:
    """Whether the body of a report is kept that is the first, second … of its group since the sample began."""
    return number <= _FIRST or number in _LATER
