"""The theory for memoryless clients: visits at `rate` a day, independent of each other (a Poisson process).

A site pins from day 0 on with a max-age of `max_age` days, and clients keep pins for that long after each visit. All
times are in days. Each function gives the probability for one client, and so the share of many. For a mixture of rates,
take the average.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "fooled",
    "locked_out_after_loss",
    "locked_out_after_rotation",
    "locked_out_with_followed_list",
    "locked_out_with_list",
    "pinned",
    "sampling_error",
]

Floats = NDArray[np.float64]


def pinned(rate: float, max_age: float, day: Floats) -> Floats:
    """The share of clients with living pins on a day, while the site has its keys.

    They were noted by a visit in the last `max_age` days, or since day 0.
    """
    return _visited(rate, np.minimum(day, max_age))


def locked_out_after_loss(rate: float, max_age: float, lost: float, after: Floats) -> Floats:
    """The share that is locked out `after` days from the day on which all keys were lost.

    The last accepted visit was before the loss, and its pins are alive if it was less than ``max_age - after`` days
    before: 1 - exp(-rate (max_age - after)), if the site has pinned for that long.
    """
    return _visited(rate, np.minimum(max_age - after, lost))


def locked_out_with_list(
    rate: float, max_age: float, lost: float, signed: float, after: Floats, *, goes_on: float = 1.0
) -> Floats:
    """The share that is locked out `after` days from a loss of all keys, if a list is signed `signed` days from it.

    Until then it is :func:`locked_out_after_loss`. From then on a client is still locked out only if it was not refused
    since. A refusal makes it look at once, and continue for `goes_on` days. So it visited neither since the list was
    signed, nor in these days before: a factor of exp(-rate (after - signed + goes_on)), or of exp(-rate after) if the
    list was signed sooner. Repeated looks are at most an hour apart.
    """
    since = after - max(signed - goes_on, 0.0)
    left = np.where(after < signed, 1.0, np.exp(-rate * np.maximum(since, 0.0)))
    share: Floats = locked_out_after_loss(rate, max_age, lost, after) * left
    return share


def locked_out_with_followed_list(rate: float, signed: float, after: Floats, *, goes_on: float = 1.0) -> Floats:
    """The same for clients that follow the list: all have its pins, and also look daily, each at its own time."""
    since = after - max(signed - goes_on, 0.0)
    waits = np.clip(1 - (after - signed), 0.0, 1.0)
    share: Floats = np.where(after < signed, 1.0, np.exp(-rate * np.maximum(since, 0.0)) * waits)
    return share


def locked_out_after_rotation(rate: float, max_age: float, rotated: float, announced: float, after: Floats) -> Floats:
    """The share locked out `after` days from a rotation to a key that the header pinned `announced` days ahead.

    There was no visit since the announcement, exp(-rate announced), but one before it whose pins are still alive.
    """
    window = np.minimum(max_age - after, rotated) - announced
    missed: Floats = np.exp(-rate * announced) * _visited(rate, window)
    return missed


def fooled(rate: float, max_age: float, since_attack: Floats) -> Floats:
    """The share of clients that the attacker has, of those that the attack reaches, some days after its beginning.

    The site has pinned for at least `max_age` days before, and the attacker shows a key that is not pinned. The
    attacker gets a client at the first visit at which its pins have expired. Let A be the age of the last visit when
    the attack began, which is exponential. That visit is within the `x` days if one is after ``max(0, max_age - A)``.
    Integrated over A: exp(-rate max_age) sinh(rate x) for x up to max_age, then 1 - exp(-rate x) cosh(rate max_age).
    """
    # Each branch is computed where it is valid, and at its edge elsewhere, so that no exponential overflows.
    x, y = np.minimum(since_attack, max_age), np.maximum(since_attack, max_age)
    early: Floats = (np.exp(-rate * (max_age - x)) - np.exp(-rate * (max_age + x))) / 2
    late: Floats = 1 - (np.exp(-rate * (y - max_age)) + np.exp(-rate * (y + max_age))) / 2
    return np.where(since_attack <= max_age, early, late)


def sampling_error(share: Floats, clients: int) -> Floats:
    """The standard error of a share among clients that are drawn independently (binomial)."""
    error: Floats = np.sqrt(share * (1 - share) / clients)
    return error


def _visited(rate: float, days: Floats) -> Floats:
    """The share with at least one visit in a window of so many days."""
    share: Floats = -np.expm1(-rate * np.maximum(days, 0.0))
    return share
