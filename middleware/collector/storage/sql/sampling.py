"""The bodies that are kept of a group: the first ones, then fewer and fewer. Of a million reports, 47 are kept."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from ..values import Arrival

__all__ = ["MAX_AGENTS", "OTHER_AGENTS", "is_sampled", "report_rows"]

# So many user agents of one group are counted. A sender that changes its user agent cannot fill the table.
MAX_AGENTS, OTHER_AGENTS = 20, "(others)"

_FIRST = 20
# 27, 40, 60, 91 … up to more than there will ever be.
_LATER = frozenset(math.ceil(1.5**power) for power in range(8, 104))


def is_sampled(number: int) -> bool:
    """Whether to keep the body of a report, by its place in its group since the sample began (1, 2, …)."""
    return number <= _FIRST or number in _LATER


class _Group(Protocol):
    """A group that gets reports, and how many came since its sample of bodies began."""

    @property
    def id(self) -> int: ...
    @property
    def sampled(self) -> int: ...


def report_rows(
    groups: Mapping[str, _Group], arrivals: Sequence[Arrival], ids: Iterable[int]
) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """The rows of the tables reports and samples, in the order of their columns; the groups are by their keys."""
    places = Counter({key: group.sampled for key, group in groups.items()})
    reports: list[tuple[Any, ...]] = []
    samples: list[tuple[Any, ...]] = []
    for number, arrival in zip(ids, arrivals, strict=True):
        cause, flags, observed_at, expires_at, token, source, agent, received_at, body = arrival
        group = groups[cause.key].id
        reports.append((number, group, received_at, observed_at, expires_at, token, source, agent, " ".join(flags)))
        places[cause.key] += 1
        if is_sampled(places[cause.key]):
            samples.append((number, group, body))
    return reports, samples
