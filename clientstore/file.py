"""The file of a store, held open: one connection for all threads, another one after a fork, and what it has seen."""

from __future__ import annotations

import atexit
import logging
import mmap
import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Self

from dynpin.clientstore.advice import check_command, put_back, store_errors
from dynpin.clientstore.last_seen import TICK, LastSeen
from dynpin.clientstore.log import Log, log_of
from dynpin.clientstore.past_sqlite import HEAD, commits, wal_index
from dynpin.clientstore.schema import (
    IN_MEMORY,
    OpenFile,
    file_stamp,
    open_database,
    transaction,
)
from dynpin.clientstore.table import select
from dynpin.clientstore.usage import BATCH, MOST, Uses
from dynpin.errors import StoreError
from dynpin.hosts import KnownPinnedHost

__all__ = ["ClockJump", "StoreFile"]

logger = logging.getLogger("dynpin.clientstore")

ClockJump = Literal["warn", "refuse"]
_CACHED_NAMES = 4096
# By the store's clock: so long goes by at most before another file in its place is noticed.
_LOOK_EVERY = 1.0
# How often a file that is replaced while it is opened is opened again.
_ATTEMPTS = 10


class StoreFile:
    """What :class:`~dynpin.clientstore.PinStore` stands on: transactions, cached reads, forks, the clock, uses.

    Attributes:
        path: the file, or ``":memory:"``.
        clock: gives seconds since the epoch, UTC.
        read_only: whether the file cannot be written, so that nothing is noted.
    """

    def __init__(self, path: Path | str, *, clock: Callable[[], float], on_clock_jump: ClockJump) -> None:
        self.path = path
        self.clock = clock
        self.on_clock_jump: ClockJump = on_clock_jump
        self.read_only = False
        self._lock = threading.RLock()
        self._cache: dict[str, tuple[KnownPinnedHost, ...]] = {}
        self._data_version = -1
        self._generation = 0
        self._stamp: tuple[int, ...] | None = None
        self._file: os.stat_result | None = None
        self._index: mmap.mmap | None = None
        self._log: Log | None = None
        self._head = b""
        self._looked_at = float("-inf")
        self._uses = Uses()
        self._connection: sqlite3.Connection | None = None
        self._closed = False
        try:
            with self.reading() as connection:
                self._seen = LastSeen(connection)
            self.now()
        except BaseException:
            self._let_go()
            raise
        _stores.add(self)

    def close(self) -> None:
        """Close the file. Using the store afterwards raises StoreError."""
        self.write_uses()
        with self._lock:
            self._closed = True
            self._let_go()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @contextmanager
    def reading(self) -> Generator[sqlite3.Connection]:
        """The connection, held against other threads: for what else of this package keeps tables in the file."""
        with self._lock, store_errors(self.path):
            yield self._open()

    @contextmanager
    def writing(self, *, wait: bool = True) -> Generator[sqlite3.Connection]:
        """The connection inside a transaction that holds the file's write lock, committed durably at the end.

        Raises:
            StoreError: where the file cannot be written; without `wait` at once where somebody else writes.
        """
        with self._lock, store_errors(self.path):
            connection = self._open()
            full = self._log is None or not self._log.is_certain  # SQLite waits for the disk
            with transaction(connection, wait=wait):
                self._look()  # under the write lock, so that the next to write is this connection
                changes = connection.total_changes
                yield connection
                self._seen.keep(connection)
                written = self._uses.write(connection)
            self._uses.forget(written)
            # data_version tells of the writes of others alone.
            self._changed()
            if self._index is not None and connection.total_changes != changes:
                head = self._index[HEAD]
                if head == self._head:
                    self._index = None  # it is the wal-index of another file, so SQLite is asked from now on
                elif commits(head) == commits(self._head) + 1:
                    self._head = head  # nobody else has written behind it
                    if full and self._log is not None and self._log.make_certain(head):
                        # Told by a commit of this connection: it moved this index, which names this log.
                        connection.execute("PRAGMA synchronous=NORMAL")
            wait_for_disk = self._log.waiting() if self._log is not None and self._log.is_certain else None
        self._wait(wait_for_disk)

    def settle(self) -> None:
        """Wait until what this store has seen is on the disk: commits of others are seen before they are there.

        Raises:
            StoreError: where the disk fails.
        """
        log = self._log
        if log is None or log.is_settled():
            return
        with self._lock, store_errors(self.path):
            self._look()
            wait_for_disk = None if self._log is None else self._log.waiting()
        self._wait(wait_for_disk)

    def _wait(self, wait_for_disk: Callable[[], None] | None) -> None:
        if wait_for_disk is not None:
            with store_errors(self.path):
                wait_for_disk()

    def _open(self) -> sqlite3.Connection:
        if self._closed:
            raise StoreError(f"the pin store {self.path} is closed; open a new PinStore")
        if self._connection is not None and not self._connection.in_transaction and not self._is_the_file():
            self._let_go()
        if self._connection is None:  # at first, after a fork, and when another file has taken its place
            file = open_database(self.path) if isinstance(self.path, str) else self._open_file(self.path)
            self._connection, self.read_only, self._stamp = file.connection, file.read_only, file.stamp
            # A client that makes a store of its own (PinnedClient()) closes none: the last reference to it does.
            last = weakref.finalize(self, _close, file.connection, self._log, os.getpid())
            # Not at the end of the process, where the thread that sends reports still uses its own.
            last.atexit = False
            self._data_version, self._head = -1, b""
        return self._connection

    def _open_file(self, path: Path) -> OpenFile:
        for _ in range(_ATTEMPTS):
            before = _status(path)
            if before is None and self._file is not None:
                # To make a new one would be to go on with no pins, between the `rm` and the `cp` of somebody.
                raise StoreError(
                    f"the pin store {path} was removed while it was in use. To put it back, {put_back(path)}; "
                    "or start the program again to begin with no pins"
                )
            self._file = before
            file = open_database(path)
            index = None if file.stamp else wal_index(path)
            log = None if file.read_only else log_of(path, index)
            after = _status(path)
            if before is not None and after is not None and os.path.samestat(before, after):
                self._index, self._log = index, log
                return file
            # It has just been made; or it was replaced meanwhile, and which of the two SQLite has open is not known.
            _close(file.connection, log, os.getpid())
        raise StoreError(f"the pin store {path} is replaced again and again; see what else writes to its folder")

    def _is_the_file(self) -> bool:
        """Whether the connection is still that of the file, which may have been repaired, put back or removed."""
        if not isinstance(self.path, Path):
            return True
        status = _status(self.path)
        if self._file is None or status is None or not os.path.samestat(status, self._file):
            return False
        return self._stamp is None or file_stamp(self.path) == self._stamp

    def _let_go(self) -> None:
        if self._connection is not None:
            _close(self._connection, self._log, os.getpid())
        self._connection = self._index = self._log = None

    def generation(self) -> int:
        """A number that changes with every write to the store, whoever writes.

        Raises:
            StoreError: where the file cannot be read.
        """
        # What a handshake waits for: no lock, and nothing is asked of SQLite while nobody writes.
        index = self._index
        if index is not None and index[HEAD] == self._head:
            return self._generation
        with self._lock, store_errors(self.path):
            self._look()
            return self._generation

    def _look(self) -> sqlite3.Connection:
        """The connection, after a look whether another one has written."""
        connection = self._open()
        # Before SQLite is asked: what is written in between has it asked once more.
        head = b"" if self._index is None else self._index[HEAD]
        if isinstance(self.path, Path) and (self._index is None or head != self._head):
            (version,) = connection.execute("PRAGMA data_version").fetchone()
            if version != self._data_version:
                self._data_version = version
                self._changed()
            self._head = head
        return connection

    def _changed(self) -> None:
        self._cache.clear()
        self._generation += 1

    def _entries(self, name: str) -> tuple[KnownPinnedHost, ...]:
        """The entries of a host and its superdomains, from memory while no other connection has written."""
        index = self._index
        if index is not None and index[HEAD] == self._head:
            known = self._cache.get(name)
            if known is not None:
                return known
        with self._lock, store_errors(self.path):
            connection = self._look()
            entries = self._cache.get(name)
            if entries is None:
                if len(self._cache) >= _CACHED_NAMES:
                    self._cache.clear()
                entries = self._cache[name] = select(connection, name)
            return entries

    def now(self) -> float:
        """The time by the store's clock; one that has jumped since the last time seen is told of, or refused.

        Raises:
            StoreError: where it has jumped and ``on_clock_jump`` is ``"refuse"``.
        """
        now = self.clock()
        if not 0.0 <= now - self._looked_at < _LOOK_EVERY:
            self._look_round(now)
        return now

    def now_unless_written(self, generation: int) -> float | None:
        """The time, as :meth:`now` has it; None where somebody has written since the generation was that one.

        Raises:
            StoreError: as :meth:`now` and :meth:`generation` do.
        """
        index = self._index
        # As both of them do, in one step: every handshake waits for it.
        if index is None or index[HEAD] != self._head:
            self.generation()
        now = self.clock()
        if not 0.0 <= now - self._looked_at < _LOOK_EVERY:
            self._look_round(now)
        return now if self._generation == generation else None

    def _look_round(self, now: float) -> None:
        """What is not looked at each time: whether the file is still the same one, and whether the clock has jumped."""
        with store_errors(self.path):
            # No lock where all is well: a thread that waits to write may hold it for long.
            if self._index is None or not self._is_the_file():
                with self._lock:
                    self._look()  # another file is another generation
        seen_at = self._seen.at
        if seen_at is None or not 0.0 <= now - seen_at < TICK:
            self._tell_of_jump(seen_at, now)
        self._looked_at = now

    def _tell_of_jump(self, seen_at: float | None, now: float) -> None:
        with self.reading() as connection:
            jump = self._seen.jump(connection, now)
            if jump is not None:
                if self.on_clock_jump == "refuse" and seen_at is not None and now > seen_at:
                    raise StoreError(f"{jump}. If it is right:  {check_command(self.path, '--accept-clock')}")
                logger.warning("%s", jump)
            self._seen.at = now

    def count_use(self, host: str, now: float) -> None:
        """Count that the pins of a host have let a connection pass."""
        self._uses.append((host, now))
        # A handshake waits for it: where the file, or this store, is in use, the next batch is soon enough.
        if len(self._uses) % BATCH == 0 and self._lock.acquire(blocking=False):
            try:
                self._write_uses(wait=False)
            finally:
                self._lock.release()

    def write_uses(self) -> None:
        """Write how often pins were used, as far as it is collected: for a person to read, so nothing fails for it."""
        with self._lock:
            self._write_uses(wait=True)

    def _write_uses(self, *, wait: bool) -> None:
        if self._closed or not self._uses:
            return
        try:
            if not self.read_only:
                with self.writing(wait=wait):
                    return  # every transaction writes them
        except StoreError as error:
            logger.info("how often pins were used could not be written: %s", error)
            if len(self._uses) < MOST:
                return
        self._uses.forget(len(self._uses))

    # -- fork ---------------------------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """Hold the store still; called by :func:`os.fork`, as are the two below."""
        self._lock.acquire()

    def after_fork_in_parent(self) -> None:
        """Let the store go on."""
        self._lock.release()

    def after_fork_in_child(self) -> None:
        """Leave the parent its connection, and open another one on the next use."""
        self._lock = threading.RLock()
        self._data_version, self._index, self._log = -1, None, None
        if self.path != IN_MEMORY and self._connection is not None:
            # SQLite's connections must not cross a fork, and closing one in the child would drop the parent's locks:
            # it is left as it is, and the child opens its own.
            _abandoned.append(self._connection)
            self._connection = None
            self._uses = Uses()  # the parent writes those


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _close(connection: sqlite3.Connection, log: Log | None, process: int) -> None:
    if os.getpid() == process:  # a fork's child leaves the parent's connection as it is
        connection.close()
    if log is not None:
        log.close()


_stores: weakref.WeakSet[StoreFile] = weakref.WeakSet()
_abandoned: list[sqlite3.Connection] = []


def _each_store(act: Callable[[StoreFile], None]) -> Callable[[], None]:
    def act_on_each() -> None:
        for store in tuple(_stores):
            act(store)

    return act_on_each


os.register_at_fork(
    before=_each_store(StoreFile.before_fork),
    after_in_parent=_each_store(StoreFile.after_fork_in_parent),
    after_in_child=_each_store(StoreFile.after_fork_in_child),
)
atexit.register(_each_store(StoreFile.write_uses))
