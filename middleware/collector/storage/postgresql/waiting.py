"""A bound, on the client's side, for every wait for the server. A server that hangs keeps connections open."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import cast

import psycopg
from sqlalchemy import Connection

__all__ = ["bounded_wait", "raw"]

# How long a server may take to accept a cancellation (seconds).
_CANCEL_S = 1.0


def raw(db: Connection) -> psycopg.Connection:
    """The connection of psycopg."""
    return cast("psycopg.Connection", db.connection.driver_connection)


@contextmanager
def bounded_wait(db: Connection | psycopg.Connection, seconds: float) -> Generator[None]:
    """Cancel the statement after so many seconds. If the cancellation cannot be sent, end the connection."""
    connection = raw(db) if isinstance(db, Connection) else db
    watch = threading.Timer(seconds, _cancel, [connection])
    watch.daemon = True
    watch.start()
    try:
        yield
    finally:
        watch.cancel()
        # The timer's thread must have ended before somebody else gets the connection.
        watch.join()


def _cancel(connection: psycopg.Connection) -> None:
    # Before libpq 17, cancelling blocks without a limit and ignores the timeout.
    if psycopg.capabilities.has_cancel_safe():
        with suppress(psycopg.Error):
            connection.cancel_safe(timeout=_CANCEL_S)
            return
    # Neither keepalives nor tcp_user_timeout end the connection, since the server's kernel still acknowledges.
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as own:
        own.shutdown(socket.SHUT_RDWR)
