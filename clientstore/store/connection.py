"""A connection to the file of pins, and how it keeps out of the way of a fork."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import weakref
from typing import Any

from .files import PATIENCE, fork_under_way

__all__ = ["ForkUnderWay", "OpenConnection", "never_close"]


class ForkUnderWay(Exception):
    """Nothing can be opened now."""


class OpenConnection(sqlite3.Connection):
    """A connection, and what it has seen.

    It enters the lists first, then looks for a fork, and opens last. A thread that forks says so first, and then waits
    for every connection in the list. So either it finds this one there, or its fork is seen here.

    Args:
        uri: the file, and how to open it.
        lists: where it enters.
        regardless: open during a fork as well: for the thread that writes, which a fork waits for.

    Raises:
        ForkUnderWay: if a fork is under way.
    """

    def __init__(self, uri: str, *lists: list[weakref.ref[Any]], regardless: bool) -> None:
        self.is_open = True
        self.pid = 0
        # The thread that has taken it out of the pool last.
        self.thread = threading.get_ident()
        self.data_version = -1
        self.files: tuple[int, ...] = ()
        self.checked_at = 0.0
        # What a file without a log looked like when it was opened: SQLite does not tell when such a file changes.
        self.stamp: tuple[int, ...] = ()
        for connections in lists:
            connections.append(weakref.ref(self))
        if not regardless and fork_under_way():
            self.is_open = False
            raise ForkUnderWay
        try:
            self.pid = os.getpid()
            super().__init__(uri, timeout=PATIENCE, isolation_level=None, check_same_thread=False, uri=True)
        except BaseException:
            self.close()  # the error may be kept, and this with it: nobody must take it for open
            raise

    def close(self) -> None:
        """As sqlite3's, and no error where an exception kept it from being opened."""
        with contextlib.suppress(sqlite3.ProgrammingError):
            super().close()
        self.is_open = False


def never_close(connection: OpenConnection) -> None:
    """Keep a connection open to the end of the process and beyond its finalizers: the system closes the files.

    Closing the last connection merges the log; see ``_close_writer``. Python 3.12 has a setting of SQLite's against
    that (SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE), and 3.11 has not. So the object is never freed.
    """
    import ctypes  # noqa: PLC0415 - for this alone

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
