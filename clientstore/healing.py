"""Look at the signed list of a noted root after a refused connection, in the background.

The request is kept in the store. If the process ends too early, the next one continues.
"""

from __future__ import annotations

import atexit
import logging
import sqlite3
import ssl
from collections.abc import Callable

from dynpin.errors import StoreError
from dynpin.hosts import KnownPinnedHost

from .background import Background, farewell
from .enforcement import same_roots
from .store import PinStore, ask, claim, look_at, next_look_at

__all__ = ["Healing"]

logger = logging.getLogger("dynpin.clientstore")

# How long a process waits at its end for a look in progress, in seconds.
_GRACE = 2.0


class Healing(Background):
    """Looks at signed lists for one store, in a daemon thread that runs while a list is due.

    Args:
        store: the store whose hosts have noted the roots.
        context: the enforced context; its CA certificates verify an https URI. None for the system's.
    """

    def __init__(self, store: PinStore, *, context: ssl.SSLContext | None = None) -> None:
        super().__init__(store, "dynpin-recovery", "looking at signed lists ended; the next process continues")
        self.context = context

    def ask(self, known: KnownPinnedHost, *, may_wait: bool) -> None:
        """Look at the list of the root of this host, because a connection was refused; record that in the store.

        Args:
            known: the entry whose pins were not shown.
            may_wait: whether the thread may wait for the disk.

        Raises:
            StoreError: if the file cannot be written.
        """

        def job(connection: sqlite3.Connection) -> None:
            ask(connection, [known], self.store.clock())
            self._begin()  # the thread waits for this transaction

        (self.store.database.write if may_wait else self.store.database.write_later)(job)

    def resume(self) -> None:
        """Continue the work that an earlier process left, and look at the lists that are followed."""
        if self.store.read_only:
            return
        try:
            waits = next_look_at(self.store.database.select, self.store.clock()) is not None
        except StoreError as error:  # each handshake reports this, and refuses
            logger.warning("the signed lists cannot be looked up: %s", error)
            return
        if waits:
            # On the store's thread, where no signal handler runs: a lock left locked would hang a handshake.
            self.store.database.write_later(lambda _: self._begin())

    def _step(self, store: PinStore) -> Callable[[], float | None]:
        def step() -> float | None:
            self._look(store)
            return next_look_at(store.database.select, store.clock())

        return step

    def _look(self, store: PinStore) -> None:
        """Look at all lists that are due."""
        while (look := store.database.write(lambda connection: claim(connection, store.clock()))) is not None:
            changed = look_at(store.database, look, store.clock, context=same_roots(self.context))
            if changed:
                logger.warning("the signed list at %s gave %s other pins", look.recovery.uri, ", ".join(changed))


@atexit.register
def _farewell() -> None:
    farewell(Healing, _GRACE)
