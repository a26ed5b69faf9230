"""A second process that holds the write lock of a store, and an event loop that counts its steps during that."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

from dynpin import Noting, Pin
from dynpin.clientstore import PinStore

__all__ = ["WatchedStore", "write_lock_held"]

_HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.readline()
connection.execute("ROLLBACK")
connection.close()
"""
_STEPS = 200


@contextlib.contextmanager
def write_lock_held(path: Path | str) -> Generator[Callable[[], None]]:
    """Hold the write lock of the store at `path`, until the yielded function has been called."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        try:
            yield process.stdin.close
        finally:
            process.stdin.close()


class WatchedStore(PinStore):
    """A store that reports when a noting begins, so that a loop can count its steps while the noting waits."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.begun = threading.Event()
        self.threads: list[int] = []
        self.waiting = False

    def note(
        self, host: str, value: str | Sequence[str], chain: Sequence[Pin], certificates: Sequence[bytes] = ()
    ) -> Noting:
        self.threads.append(threading.get_ident())
        self.waiting = True
        self.begun.set()
        try:
            return super().note(host, value, chain, certificates)
        finally:
            self.waiting = False

    async def steps_while_it_waits(self, request: asyncio.Task[object], release: Callable[[], None]) -> int:
        """Count steps of the loop from the beginning of the noting on, release the lock, and return their number."""
        while not self.begun.is_set() and not request.done():
            await asyncio.sleep(0)
        steps = 0
        while self.waiting and steps < _STEPS:
            await asyncio.sleep(0)
            steps += 1
        release()
        return steps
