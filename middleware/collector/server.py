"""Serves the collector with uvicorn. Each step of a connection has a deadline, and so has the shutdown.

uvicorn has no deadline for a head, for a body, or for a peer that does not read. It sees a connection only after the
TLS handshake. So each connection here is an asyncio protocol that counts the connection, makes the handshake, and
passes the bytes on to uvicorn's protocol. The app tells it how far a request is: it finds its connection in the state
of the ASGI scope. Of uvicorn this uses only the arguments of its protocols, and the methods ``handle_exit`` and
``shutdown`` of its server. Tests also run with the oldest version that pyproject.toml allows.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["ServerLimits", "serve", "telling"]

# How long a peer may read nothing of an answer; and how much of a graceful shutdown it may still use (seconds).
_READ_S = 30.0
_GRACE_S = 5
# The intake itself answers a slow body with 408, also on other servers. The connection ends so much later (seconds).
_AFTER_THE_APP_S = 2.0
_TIMED_OUT = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
# Bytes of one read, after which other connections get their turn: a chunk of one byte takes 7 µs.
_READ_BYTES = 16_384
_HEAD_BYTES = 65_536
_CONNECTION = "dynpin.connection"


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """The limits of the connections of one process.

    Attributes:
        connections: how many may be open at once, also during the TLS handshake; further ones are closed.
        connections_per_source: how many one source may have, as the intake defines a source; trusted proxies have no
            limit.
        head_seconds: how long the head of a request may take, and how long a TLS handshake.
        body_seconds: how long the body may take.
        request_bytes: bytes of a request on the wire, with the framing of its body.
        end_seconds: how long a graceful shutdown may take before the process ends anyway.
    """

    connections: int = 800
    connections_per_source: int = 400
    head_seconds: float = 10
    body_seconds: float = 10
    request_bytes: int = 5 * _HEAD_BYTES
    end_seconds: float = 9


class _Connections:
    """The open connections, in total and of each source."""

    def __init__(
        self, limits: ServerLimits, source_of: Callable[[str | None], str | None], tls: ssl.SSLContext | None
    ) -> None:
        self.limits = limits
        self.tls = tls
        self._source_of = source_of
        self._sources: dict[_Connection, str | None] = {}
        self._of: Counter[str] = Counter()

    def enter(self, connection: _Connection, peer: str | None) -> bool:
        """Count a connection. False if there are too many."""
        source = self._source_of(peer)
        if len(self._sources) >= self.limits.connections:
            return False
        if source is not None:
            if self._of[source] >= self.limits.connections_per_source:
                return False
            self._of[source] += 1
        self._sources[connection] = source
        return True

    def leave(self, connection: _Connection) -> None:
        """A connection has ended. One that was refused is ignored."""
        source = self._sources.pop(connection, None)
        if source is not None:
            self._of[source] -= 1
            if not self._of[source]:
                del self._of[source]

    def end(self) -> None:
        """End the connections that wait for a slow peer. A request that has arrived gets its answer."""
        for connection in list(self._sources):
            connection.end()


class _Connection(asyncio.BufferedProtocol):
    """One connection, with deadlines; uvicorn's own protocol speaks HTTP/1.1 on it."""

    def __init__(self, connections: _Connections, app_state: dict[str, Any], of_uvicorn: dict[str, Any]) -> None:
        self._connections = connections
        self._limits = connections.limits
        self._loop = asyncio.get_running_loop()
        self._http = H11Protocol(app_state={**app_state, _CONNECTION: self}, **of_uvicorn)
        self._buffer = memoryview(bytearray(_READ_BYTES))
        self._early = b""
        self._length = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._handshake: asyncio.Task[None] | None = None
        self._is_open = False
        self._answers = False
        self._awaits_body = False
        self._is_first = True

    # -- called by asyncio --------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection, and start; with TLS, make the handshake first."""
        self._transport = cast("asyncio.Transport", transport)
        peer: object = transport.get_extra_info("peername")
        address = cast("tuple[str, int]", peer)[0] if isinstance(peer, tuple) else None
        if not self._connections.enter(self, address):
            self._transport.abort()
        elif self._connections.tls is None:
            self._begin()
        else:
            self._transport.pause_reading()  # from here on the bytes are TLS
            self._handshake = self._loop.create_task(self._shake_hands(self._connections.tls))

    def connection_lost(self, exc: Exception | None) -> None:
        """Clean up after the connection."""
        self._stop_waiting()
        if self._unread is not None:
            self._unread.cancel()
        self._connections.leave(self)
        if self._is_open:
            self._is_open = False
            self._http.connection_lost(exc)

    def get_buffer(self, sizehint: int) -> memoryview:
        """The buffer for the next bytes."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Pass on the bytes that have arrived."""
        data = bytes(self._buffer[:nbytes])
        if self._is_open:
            self._received(data)
        else:
            self._early += data  # it came with the end of the handshake, which start_tls has not returned yet

    def eof_received(self) -> None:
        """The peer sends nothing more. asyncio closes the connection, as with uvicorn."""
        if self._is_open:
            self._http.eof_received()

    def pause_writing(self) -> None:
        """The peer reads too slowly."""
        if self._is_open:
            self._http.pause_writing()
        self._unread = self._loop.call_later(_READ_S, self._transport.abort)

    def resume_writing(self) -> None:
        """The peer has read enough."""
        if self._is_open:
            self._http.resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    # -- called by the app --------------------------------------------------------------------------------------------

    def request_begins(self) -> None:
        """The head of a request is complete."""
        self._answers, self._awaits_body, self._is_first, self._length = True, False, False, 0
        self._stop_waiting()

    def body_awaited(self) -> None:
        """The app reads the body. The deadline of the body begins with the first read."""
        if not self._awaits_body:
            self._awaits_body = True
            self._wait(self._limits.body_seconds + _AFTER_THE_APP_S)

    def body_ended(self) -> None:
        """The app has read the whole body."""
        self._awaits_body = False
        self._stop_waiting()

    def answer_ended(self) -> None:
        """The answer is complete. What arrives next is a new request, or a body that the app did not read."""
        self._answers = self._awaits_body = False
        self._stop_waiting()

    def end(self) -> None:
        """End now, if the connection waits for the peer."""
        if self._handshake is not None:
            self._handshake.cancel()
        if self._awaits_body or self._unread is not None or not self._is_open:
            self._transport.abort()

    # -- deadlines ----------------------------------------------------------------------------------------------------

    async def _shake_hands(self, context: ssl.SSLContext) -> None:
        seconds = self._limits.head_seconds
        try:
            upgraded = await self._loop.start_tls(
                self._transport, self, context, server_side=True,
                ssl_handshake_timeout=seconds, ssl_shutdown_timeout=_GRACE_S,
            )  # fmt: skip
        except (OSError, asyncio.CancelledError):  # ssl.SSLError and TimeoutError are OSErrors
            upgraded = None
        self._handshake = None
        if upgraded is None:
            # asyncio calls no other method when such a connection ends.
            self._transport.abort()
            self._connections.leave(self)
            return
        self._transport = upgraded
        self._begin()

    def _begin(self) -> None:
        self._is_open = True
        self._http.connection_made(self._transport)
        self._wait(self._limits.head_seconds)
        early, self._early = self._early, b""
        if early:
            self._received(early)

    def _received(self, data: bytes) -> None:
        self._length += len(data)
        if self._length > self._limits.request_bytes:
            self._transport.abort()
            return
        if not self._answers and self._deadline is None:
            self._wait(self._limits.head_seconds)
        self._http.data_received(data)

    def _wait(self, seconds: float) -> None:
        self._stop_waiting()
        self._deadline = self._loop.call_later(seconds, self._too_slow)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        if self._is_first and self._length and not self._transport.is_closing():
            self._transport.write(_TIMED_OUT)
            self._transport.close()
        else:
            self._transport.abort()


def telling(app: ASGIApp) -> ASGIApp:
    """Wrap the app, so that it tells each connection how far its request is."""

    async def told(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        connection: _Connection = scope["state"].pop(_CONNECTION)
        has_begun = has_ended = has_body = False

        async def received() -> Message:
            nonlocal has_body
            if not (has_ended or has_body):
                connection.body_awaited()
            message = await receive()
            if not (has_ended or message.get("more_body")):
                # What the app awaits next is the end of the connection: Starlette does while it streams an answer.
                has_body = True
                connection.body_ended()
            return message

        async def sent(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            if message["type"] == "http.response.body" and not message.get("more_body"):
                end()  # first, since uvicorn starts the next request when the answer ends
            await send(message)

        def end() -> None:
            nonlocal has_ended
            if not has_ended:
                has_ended = True
                connection.answer_ended()

        connection.request_begins()
        try:
            await app(scope, received, sent)
        except asyncio.CancelledError:
            # The server shuts down, and this took too long. uvicorn would log a traceback.
            if not has_begun:
                headers = [(b"retry-after", b"10"), (b"content-length", b"0")]
                await send({"type": "http.response.start", "status": 503, "headers": headers})
                await send({"type": "http.response.body"})
        finally:
            end()

    return told


class _Server(uvicorn.Server):
    """uvicorn's server, with a shutdown that does not wait for a disk that hangs."""

    def __init__(self, config: uvicorn.Config, connections: _Connections) -> None:
        super().__init__(config)
        self._connections = connections

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin a graceful shutdown with a deadline. Every acknowledged report is on the disk already."""
        if not self.should_exit:
            last = threading.Timer(self._connections.limits.end_seconds, _end)
            last.daemon = True
            last.start()
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the connections; first those that wait for a slow peer."""
        self._connections.end()
        await super().shutdown(sockets)


def _end() -> None:
    print(
        "the graceful shutdown took too long, so the process ends now; all acknowledged reports are stored",
        file=sys.stderr,
    )
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
    """Serve until a signal, then shut down within `limits.end_seconds`.

    Args:
        app: the collector.
        listener: a listening socket.
        limits: the limits of the connections.
        source_of: gives the source of a peer, for the limit of a source; None if the peer has no limit.
        certificate: the certificate chain, PEM, for https.
        key: its private key, PEM.
    """
    tls = None
    if certificate is not None:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(certificate, key)
    connections = _Connections(limits, source_of, tls)

    def connection(app_state: dict[str, Any], **of_uvicorn: Any) -> _Connection:  # noqa: ANN401 - as uvicorn has it
        return _Connection(connections, app_state, of_uvicorn)

    config = uvicorn.Config(
        telling(app),
        http=cast("type[asyncio.Protocol]", connection),
        ws="none",
        # uvloop 0.23: bytes that arrive at once are read before start_tls, or never.
        loop="asyncio",
        # The app decides which forwarded headers to trust.
        proxy_headers=False,
        h11_max_incomplete_event_size=_HEAD_BYTES,
        # uvicorn would log one warning for each invalid request of a stranger.
        log_level="error",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
    )
    server = _Server(config, connections)
    # A closed terminal ends the server gracefully, as the other signals do. With nohup the signal is ignored.
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, server.handle_exit)
    server.run(sockets=[listener])
