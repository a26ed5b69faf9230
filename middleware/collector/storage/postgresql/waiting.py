"""A bound for every wait for the server, on this side: one that hangs keeps its connections and answers nothing."""

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

# How long a server may take to hear that something is cancelled.
_CANCEL_S = 1.0


def raw(db: Connection) -> psycopg.Connection:
    """The connection as psycopg has it."""
    return cast("psycopg.Connection", db.connection.driver_connection)


@contextmanager
def bounded_wait(db: Connection | psycopg.Connection, seconds: float) -> Generator[None]:
    """After so many seconds cancel what the connection waits for; where nobody hears that, end the connection."""
    connection = raw(db) if isinstance(db, Connection) else db
    watch = threading.Timer(seconds, _cancel, [connection])
    watch.daemon = True
    watch.start()
    try:
        yield
    finally:
        watch.cancel()
        # Whatever it does is over before the connection is anybody else's.
        watch.join()


def _cancel(connection: psycopg.Connection) -> None:
    # Before libpq 17 cancelling blocks without a limit, whatever timeout is named.
    if psycopg.capabilities.has_cancel_safe():
        with suppress(psycopg.Error):
            connection.cancel_safe(timeout=_CANCEL_S)
            return
    # The server's kernel still acknowledges, so that neither keepalives nor tcp_user_timeout end the connection.
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as own:
        own.shutdown(socket.SHUT_RDWR)
