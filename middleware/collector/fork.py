"""Locks, threads and connections belong to one process, so a forked child makes its own (gunicorn --preload).

SQLite forbids a fork during a transaction. Fork before the first report, as every server does.
"""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet

__all__ = ["renew_after_fork"]


class Renewable(Protocol):
    """An object whose state must not cross a fork."""

    def renew(self) -> None:
        """Start again, and leave the parent's objects alone."""
        ...


_alive: WeakSet[Renewable] = WeakSet()


def renew_after_fork(thing: Renewable) -> None:
    """Call ``thing.renew()`` in each forked child, before it has a second thread."""
    _alive.add(thing)


def _renew() -> None:
    for thing in list(_alive):
        thing.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
