"""HTTP exchanges that end in time, even if the other side does nothing, and that follow no redirect."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
)

from .resolving import addresses_of

__all__ = ["STEPS", "bounded_opener"]

# How long an exchange may take until its response begins, as a multiple of the timeout of one step. Without this limit
# a server could send one byte at a time, and each byte would restart the timeout.
STEPS = 3


def bounded_opener(context: ssl.SSLContext, *, until: float | None = None) -> OpenerDirector:
    """An opener for http and https URIs. It uses the proxies of the environment, as urllib does.

    Args:
        context: for https.
        until: when every exchange ends, including its body, by :func:`time.monotonic`. None limits each exchange by its
            timeout, and only until its response begins.
    """
    opener = OpenerDirector()
    answered: dict[tuple[str, int], Any] = {}
    # The handlers are listed one by one: with urllib's own list an opener follows redirects and reads file: URIs.
    for handler in (
        ProxyHandler(),
        _HTTPHandler(until, answered),
        _HTTPSHandler(context, until, answered),
        HTTPErrorProcessor(),
        HTTPDefaultErrorHandler(),
    ):
        opener.add_handler(handler)
    return opener


class _Response(http.client.HTTPResponse):
    """Reports when it is closed."""

    when_closed: Callable[[], None] | None = None

    def close(self) -> None:
        super().close()
        if self.when_closed is not None:
            self.when_closed()


class _Connection(http.client.HTTPConnection):
    """Ends in time, even if the other side does nothing: while it connects, in CONNECT, and in the response."""

    response_class = _Response
    _timer: threading.Timer | None = None
    _copy: socket.socket | None = None
    _lasts = False
    until: float | None = None
    # For each host, the address that has answered. It is tried first, since another one may be dead.
    answered: dict[tuple[str, int], Any]

    def __init__(self, host: str, *args: Any, **options: Any) -> None:  # noqa: ANN401 - http.client's own
        super().__init__(host, *args, **options)
        # http.client creates its socket through this attribute. This is the only place to get the plain socket.
        self._create_connection = self._connect_in_time

    def _connect_in_time(
        self, address: tuple[str, int], timeout: float, source_address: tuple[str, int] | None = None
    ) -> socket.socket:
        end = time.monotonic() + STEPS * timeout if self.until is None else self.until
        failure: OSError = TimeoutError("timed out")
        found = [each[4] for each in addresses_of(*address, min(timeout, end - time.monotonic()))]
        found.sort(key=lambda each: each != self.answered.get(address))
        for number, place in enumerate(found):
            left = end - time.monotonic()
            if left <= 0:
                break
            try:
                # Each remaining address gets its share of the time, since the first one may be dead.
                wait = min(timeout, left / (len(found) - number))
                sock = socket.create_connection((str(place[0]), int(place[1])), wait, source_address)
            except OSError as error:
                failure = error
                continue
            self.answered[address] = place
            # A copy, since TLS takes over the descriptor of this one.
            self._copy = sock.dup()
            self._timer = threading.Timer(max(0.0, end - time.monotonic()), _shut, [self._copy])
            self._timer.daemon = True
            # If the interpreter is shutting down no thread can start, and nothing waits for this exchange for long.
            with contextlib.suppress(RuntimeError):
                self._timer.start()
            sock.settimeout(timeout)
            return sock
        raise failure

    def getresponse(self) -> http.client.HTTPResponse:
        # One read of a body may also wait for many small pieces: in the size of a chunk, and after the last chunk.
        self._lasts = self.until is not None  # the time limit outlives the connection, which may be closed here
        try:
            response = super().getresponse()
        except BaseException:
            self._lasts = False
            raise
        finally:
            if not self._lasts:
                self._end_timer()
        if isinstance(response, _Response):
            response.when_closed = self._end_timer
        return response

    def close(self) -> None:
        if not self._lasts:
            self._end_timer()
        super().close()

    def _end_timer(self) -> None:
        if self._timer is not None and self._copy is not None:
            self._timer.cancel()
            self._copy.close()


class _TLSConnection(http.client.HTTPSConnection, _Connection):
    dynpin_exempt = True  # injection must not make it note pins, and so refuse a context that is not enforced


class _HTTPHandler(HTTPHandler):
    def __init__(self, until: float | None, answered: dict[tuple[str, int], Any]) -> None:
        super().__init__()
        self._options = (until, answered)

    def http_open(self, req: Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_made, _Connection, *self._options), req)


class _HTTPSHandler(HTTPSHandler):
    def __init__(self, context: ssl.SSLContext, until: float | None, answered: dict[tuple[str, int], Any]) -> None:
        super().__init__(context=context)
        self._tls = context
        self._options = (until, answered)

    def https_open(self, req: Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_made, _TLSConnection, *self._options), req, context=self._tls)


def _made(
    kind: type[_Connection],
    until: float | None,
    answered: dict[tuple[str, int], Any],
    host: str,
    **options: Any,  # noqa: ANN401 - as above
) -> _Connection:
    connection = kind(host, **options)
    connection.until, connection.answered = until, answered
    return connection


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
