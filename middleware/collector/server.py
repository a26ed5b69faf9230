"""Serves the collector with uvicorn: a deadline for all that a stranger could draw out, and an end that ends.

uvicorn has no deadline for a head or a body, and none for a peer that does not read. Its protocol class is subclassed
for them, and named in its configuration (``http=``). Tests hold what is used of it: ``conn`` (the connection of h11),
``cycle``, ``client``, ``shutdown`` and ``on_response_complete``, as of uvicorn 0.54.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Literal

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["ServerLimits", "serve"]

# A peer that reads nothing of an answer for so long is gone; what it still may have of a graceful end.
_READ_S = 30.0
_GRACE_S = 5
# The intake answers a slow body by itself with 408, as it must on other servers; this much later the connection ends.
_AFTER_THE_APP_S = 2.0
_TIMED_OUT = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """What one process does for its connections.

    Attributes:
        connections: how many there may be at once; more are closed at once.
        connections_per_source: and of one source, as the intake tells them apart; trusted proxies are free.
        head_seconds: how long the head of a request may take.
        body_seconds: how long its body may take.
        end_seconds: how long a graceful end may take before the process ends all the same.
    """

    connections: int = 800
    connections_per_source: int = 400
    head_seconds: float = 10
    body_seconds: float = 10
    end_seconds: float = 9


class _Connections:
    """How many connections there are, in all and of each source."""

    def __init__(self, limits: ServerLimits, source_of: Callable[[str | None], str | None]) -> None:
        self.limits = limits
        self._source_of = source_of
        self._of: Counter[str] = Counter()
        self._all = 0

    def enter(self, peer: str | None) -> tuple[str | None] | None:
        """The source of a connection, None in it for one that is not counted by source; None where it is too many."""
        source = self._source_of(peer)
        if self._all >= self.limits.connections:
            return None
        if source is not None:
            if self._of[source] >= self.limits.connections_per_source:
                return None
            self._of[source] += 1
        self._all += 1
        return (source,)

    def leave(self, entered: tuple[str | None]) -> None:
        """A connection that was let in has ended."""
        self._all -= 1
        (source,) = entered
        if source is not None:
            self._of[source] -= 1
            if not self._of[source]:
                del self._of[source]


def _protocol(connections: _Connections) -> type[H11Protocol]:
    limits = connections.limits
    seconds = {"head": limits.head_seconds, "body": limits.body_seconds + _AFTER_THE_APP_S}

    class BoundedProtocol(H11Protocol):
        """HTTP/1.1 on one connection, with deadlines."""

        _entered: tuple[str | None] | None = None
        _awaited: tuple[str, object] = ("", None)
        _deadline: asyncio.TimerHandle | None = None
        _unread: asyncio.TimerHandle | None = None
        _is_new = True

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._entered = connections.enter(self.client[0] if self.client else None)
            if self._entered is None:
                transport.abort()
            else:
                self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            for timer in (self._deadline, self._unread):
                if timer is not None:
                    timer.cancel()
            if self._entered is not None:
                connections.leave(self._entered)
                self._entered = None

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._is_new = False
            self._watch()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._unread = self.loop.call_later(_READ_S, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            if self._unread is not None:
                self._unread.cancel()
                self._unread = None

        def shutdown(self) -> None:
            """End now, but for a request that has arrived and has no answer yet."""
            if self._unread is not None or self._waits_for():
                self.transport.abort()
            else:
                super().shutdown()

        def _waits_for(self) -> Literal["", "head", "body"]:
            """What of a request is under way; between two requests uvicorn's own time limit holds."""
            state = self.conn.their_state
            if state is h11.SEND_BODY:
                return "body"
            has_begun = bool(self.conn.trailing_data[0])
            return "head" if state is h11.IDLE and (self._is_new or has_begun) else ""

        def _watch(self) -> None:
            awaited = (self._waits_for(), self.cycle)
            if awaited == self._awaited:
                return
            self._awaited = awaited
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None
            if awaited[0] and not self.transport.is_closing():
                self._deadline = self.loop.call_later(seconds[awaited[0]], self._too_slow)

        def _too_slow(self) -> None:
            if self._waits_for() == "head" and self.conn.trailing_data[0]:
                self.transport.write(_TIMED_OUT)
                self.transport.close()
            else:
                self.transport.abort()

    return BoundedProtocol


class _Server(uvicorn.Server):
    """uvicorn's server, whose end does not wait for a disk that hangs."""

    def __init__(self, config: uvicorn.Config, end_seconds: float) -> None:
        super().__init__(config)
        self._end_seconds = end_seconds

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin a graceful end, and have it end in time: every report that was acknowledged is on the disk."""
        if not self.should_exit:
            last = threading.Timer(self._end_seconds, _end)
            last.daemon = True
            last.start()
        super().handle_exit(sig, frame)


def _end() -> None:
    print("the graceful end took too long; reports that were acknowledged are stored", file=sys.stderr)
    sys.stderr.flush()
    os._exit(1)


def serve(
    app: ASGIApp,
    listener: socket.socket,
    limits: ServerLimits,
    source_of: Callable[[str | None], str | None],
    *,
    certificate: Path | None = None,
    key: Path | None = None,
) -> None:
    """Serve until a signal says to end; then end within ten seconds, whatever is open.

    Args:
        app: the collector.
        listener: a socket that listens.
        limits: the bounds of the connections.
        source_of: gives the source of a peer, by which connections are counted; None for one that is not.
        certificate: the certificate chain, PEM, for https.
        key: its private key, PEM.
    """
    config = uvicorn.Config(
        app,
        http=_protocol(_Connections(limits, source_of)),
        ws="none",
        # What is believed of forwarded headers is the app's to say.
        proxy_headers=False,
        ssl_certfile=certificate,
        ssl_keyfile=key,
        # Warnings are of what strangers send, one line each.
        log_level="error",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
    )
    _Server(config, limits.end_seconds).run(sockets=[listener])
