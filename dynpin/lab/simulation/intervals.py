"""The random error of a study's figures: 95 % intervals, since clients are drawn at random.

Clients are drawn independently. So a share is binomial (Wilson's interval), and the variance of a sum over clients is
the variance of one client times the number of clients.
"""

from __future__ import annotations

import math

__all__ = ["of_share", "of_sum"]

# 95 % of a normal distribution are within this many standard deviations of its mean.
_WIDE = 1.959964


def of_share(count: int, clients: int) -> tuple[float, float]:
    """The interval of a share among clients (E. B. Wilson, 1927)."""
    share, spread = count / clients, _WIDE**2 / clients
    middle = (share + spread / 2) / (1 + spread)
    half = _WIDE / (1 + spread) * math.sqrt(share * (1 - share) / clients + spread / (4 * clients))
    return max(0.0, middle - half) if count else 0.0, min(1.0, middle + half) if count < clients else 1.0


def of_sum(total: float, squares: float, clients: int) -> float:
    """Half the width of the interval of a sum over clients.

    Args:
        total: the sum.
        squares: the sum of the squares, in the square of the same unit.
        clients: the number of clients in the sum.
    """
    variance = max(0.0, squares / clients - (total / clients) ** 2)
    return _WIDE * math.sqrt(clients * variance)
