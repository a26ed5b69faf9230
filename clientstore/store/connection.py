"""A connection to the store's file, and how it avoids being open during a fork."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import weakref
from typing import Any

from .files import PATIENCE, fork_under_way

__all__ = ["ForkUnderWay", "OpenConnection", "never_close", "readable"]


class ForkUnderWay(Exception):
    """No connection can be opened now."""


class OpenConnection(sqlite3.Connection):
    """A connection, with the state that it has read.

    It first adds itself to the lists, then checks for a fork, and opens last. A thread that forks announces the fork
    first, and then waits for every connection in the lists. So either the fork waits for this connection, or this
    connection sees the fork.

    Args:
        uri: the file, and how to open it.
        lists: the lists to add the connection to.
        regardless: open even during a fork. Only the writing thread does this, since a fork waits for it.

    Raises:
        ForkUnderWay: if a fork is under way.
    """

    def __init__(self, uri: str, *lists: list[weakref.ref[Any]], regardless: bool) -> None:
        self.is_open = True
        self.pid = 0
        # The last thread that took it out of the pool.
        self.thread = threading.get_ident()
        self.data_version = -1
        self.files: tuple[int, ...] = ()
        self.checked_at = 0.0
        # For a file without a log: its size and time when it was opened. SQLite does not detect changes of such a file.
        self.stamp: tuple[int, ...] = ()
        for connections in lists:
            connections.append(weakref.ref(self))
        if not regardless and fork_under_way():
            self.is_open = False
            raise ForkUnderWay
        try:
            self.pid = os.getpid()
            super().__init__(uri, timeout=PATIENCE, isolation_level=None, check_same_thread=False, uri=True)
            # A text that is damaged spoils its own row, which is then no sound one, and not the whole SELECT.
            self.text_factory = readable
        except BaseException:
            self.close()  # the error may be kept, and this object with it: it must not look open
            raise

    def close(self) -> None:
        """Close it; no error if an exception interrupted the opening."""
        # The last connection removes the log when it closes. Then another one may open a new log before this returns.
        self.files = ()
        with contextlib.suppress(sqlite3.ProgrammingError):
            super().close()
        self.is_open = False


def readable(text: bytes) -> str:
    """A text of the file, which may be damaged: a ``text_factory`` that raises no error."""
    return text.decode(errors="replace")


def never_close(connection: OpenConnection) -> None:
    """Keep a connection open until the process ends, past its finalizers: the system then closes the files.

    To close the last connection merges the log; see ``_close_writer``. Python 3.12 can switch that off
    (SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE), Python 3.11 cannot. So the object is never freed.
    """
    import ctypes  # noqa: PLC0415 - for this alone

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
