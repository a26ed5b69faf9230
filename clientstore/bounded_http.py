"""One HTTP exchange that ends with its time, whatever the other side does, and follows no redirect."""

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

__all__ = ["STEPS", "bounded_opener"]

# Until its response begins, an exchange takes so many times the timeout of one step at most: each byte that drips in
# begins that one anew.
STEPS = 3


def bounded_opener(context: ssl.SSLContext, *, until: float | None = None) -> OpenerDirector:
    """What opens http and https URIs, with the proxies of the environment, as urllib takes them.

    Args:
        context: for https.
        until: when every exchange ends, in its body too, by :func:`time.monotonic`; None to end each by itself, and
            only until its response begins.
    """
    opener = OpenerDirector()
    # The handlers are named one by one: an opener with urllib's own would follow redirects and read file: URIs.
    for handler in (
        ProxyHandler(),
        _HTTPHandler(until),
        _HTTPSHandler(context, until),
        HTTPErrorProcessor(),
        HTTPDefaultErrorHandler(),
    ):
        opener.add_handler(handler)
    return opener


class _Response(http.client.HTTPResponse):
    """Tells when it is closed."""

    when_closed: Callable[[], None] | None = None

    def close(self) -> None:
        super().close()
        if self.when_closed is not None:
            self.when_closed()


class _Connection(http.client.HTTPConnection):
    """Ends with its time, whatever the other side does: until an address answers, in CONNECT, in its response."""

    response_class = _Response
    _timer: threading.Timer | None = None
    _copy: socket.socket | None = None
    _lasts = False
    until: float | None = None

    def __init__(self, host: str, *args: Any, **options: Any) -> None:  # noqa: ANN401 - http.client's own
        super().__init__(host, *args, **options)
        # By this attribute http.client makes its socket: the one moment at which the bare socket is at hand.
        self._create_connection = self._connect_in_time

    def _connect_in_time(
        self, address: tuple[str, int], timeout: float, source_address: tuple[str, int] | None = None
    ) -> socket.socket:
        end = time.monotonic() + STEPS * timeout if self.until is None else self.until
        failure: OSError = TimeoutError("timed out")
        for *_, found in socket.getaddrinfo(*address, type=socket.SOCK_STREAM):
            left = end - time.monotonic()
            if left <= 0:
                break
            try:
                sock = socket.create_connection((str(found[0]), int(found[1])), min(timeout, left), source_address)
            except OSError as error:
                failure = error
                continue
            # A copy, since TLS takes the descriptor of this one away.
            self._copy = sock.dup()
            self._timer = threading.Timer(max(0.0, end - time.monotonic()), _shut, [self._copy])
            self._timer.daemon = True
            # Where the interpreter is going down no thread begins any more, and nothing waits for this one for long.
            with contextlib.suppress(RuntimeError):
                self._timer.start()
            sock.settimeout(timeout)
            return sock
        raise failure

    def getresponse(self) -> http.client.HTTPResponse:
        # A body may drip as well, where one read waits for many bytes: in the size of a chunk, and after the last one.
        self._lasts = self.until is not None  # beyond the connection, which may be closed here
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
    pass


class _HTTPHandler(HTTPHandler):
    def __init__(self, until: float | None) -> None:
        super().__init__()
        self._until = until

    def http_open(self, req: Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_made, _Connection, self._until), req)


class _HTTPSHandler(HTTPSHandler):
    def __init__(self, context: ssl.SSLContext, until: float | None) -> None:
        super().__init__(context=context)
        self._tls = context
        self._until = until

    def https_open(self, req: Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_made, _TLSConnection, self._until), req, context=self._tls)


def _made(kind: type[_Connection], until: float | None, host: str, **options: Any) -> _Connection:  # noqa: ANN401 - as above
    connection = kind(host, **options)
    connection.until = until
    return connection


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
