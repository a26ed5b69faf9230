"""What is made anew in a forked child: locks, threads and connections belong to one process (gunicorn --preload).

SQLite forbids to fork in the middle of a transaction: fork before the first report, as every server does.
"""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet

__all__ = ["renew_after_fork"]


class Renewable(Protocol):
    """Something with a state that must not cross a fork."""

    def renew(self) -> None:
        """Begin again, without touching what the parent had."""
        ...


_alive: WeakSet[Renewable] = WeakSet()


def renew_after_fork(thing: Renewable) -> None:
    """Have ``thing.renew()`` called in each child, before it has a second thread."""
    _alive.add(thing)


def _renew() -> None:
    for thing in list(_alive):
        thing.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
