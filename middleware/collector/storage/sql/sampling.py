"""The bodies that are kept of a group: the first ones, then fewer and fewer. Of a million reports, 60 are kept."""

from __future__ import annotations

import math

__all__ = ["MAX_AGENTS", "OTHER_AGENTS", "is_sampled"]

# So many user agents of one group are counted. A sender that changes its user agent cannot fill the table.
MAX_AGENTS, OTHER_AGENTS = 20, "(others)"

_FIRST = 20
# 27, 40, 60, 91 … up to more than there will ever be.
_LATER = frozenset(math.ceil(1.5**power) for power in range(8, 104))


def is_sampled(number: int) -> bool:
    """Whether to keep the body of a report, by its place in its group since the sample began (1, 2, …)."""
    return number <= _FIRST or number in _LATER
