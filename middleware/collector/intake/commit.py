"""Group commit: reports that arrive while the disk is busy are stored together, in the next batch."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from dynpin.errors import StoreError

from ..fork import renew_after_fork
from ..outage import Repeated
from ..storage import Arrival

__all__ = ["GroupCommit", "Overloaded"]

_log = logging.getLogger("dynpin.collector")

_CLOSING_S = 4.0
Write = Callable[[Sequence[Arrival]], object]


class Overloaded(Exception):
    """More reports wait for the disk than the limit allows."""


class _Batch:
    def __init__(self) -> None:
        self.arrivals: list[Arrival] = []
        self.stored: Future[None] = Future()


class GroupCommit:
    """One thread that writes the reports of all other threads, a batch at a time.

    Args:
        write: stores the reports of a batch durably, or raises.
        pending: how many reports may wait.
        afterwards: called after a batch, when its requests have their answers, and before the next batch.
    """

    def __init__(self, write: Write, pending: int, afterwards: Callable[[], None] = lambda: None) -> None:
        self._write = write
        self._afterwards = afterwards
        self._pending = pending
        self.renew()
        renew_after_fork(self)

    def renew(self) -> None:
        """Start with an empty queue."""
        self._closing = False
        self._batch = _Batch()
        self._ready = threading.Condition()
        self._thread: threading.Thread | None = None

    def submit(self, arrivals: Sequence[Arrival]) -> Future[None]:
        """Queue reports. The future is done when they are on the disk; all reports of one batch share it.

        Raises:
            Overloaded: if too many reports wait already.
        """
        with self._ready:
            if self._closing or len(self._batch.arrivals) + len(arrivals) > self._pending:
                raise Overloaded
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="dynpin-collector-commit", daemon=True)
                self._thread.start()
            if not self._batch.arrivals:
                self._ready.notify()  # the thread waits only for the first report of a batch
            self._batch.arrivals.extend(arrivals)
            return self._batch.stored

    def close(self) -> None:
        """Store what waits, and end the thread. If the disk hangs, this waits only some seconds."""
        with self._ready:
            self._closing = True
            self._ready.notify()
        if self._thread is not None:
            self._thread.join(_CLOSING_S)

    def _run(self) -> None:
        faults = Repeated()
        while True:
            with self._ready:
                while not self._batch.arrivals:
                    if self._closing:
                        return
                    self._ready.wait()
                batch, self._batch = self._batch, _Batch()
            try:
                self._write(batch.arrivals)
            except StoreError as error:
                batch.stored.set_exception(error)
            except BaseException as error:  # noqa: BLE001 - the waiting requests must get every error
                if faults.fails("batch", time.monotonic()):
                    _log.exception("a batch could not be stored")
                batch.stored.set_exception(StoreError(f"the reports could not be stored: {error!r}"))
            else:
                batch.stored.set_result(None)
                try:
                    self._afterwards()
                except Exception:  # noqa: BLE001 - the thread must go on, since all later reports need it
                    if faults.fails("after a batch", time.monotonic()):
                        _log.exception("after a batch was stored")
