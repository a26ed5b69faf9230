"""One HTTP exchange that ends with its time, whatever the other side does, and follows no redirect."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import time
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


def bounded_opener(context: ssl.SSLContext) -> OpenerDirector:
    """What opens http and https URIs, with the proxies of the environment, as urllib takes them."""
    opener = OpenerDirector()
    # The handlers are named one by one: an opener with urllib's own would follow redirects and read file: URIs.
    for handler in (
        ProxyHandler(),
        _HTTPHandler(),
        _HTTPSHandler(context=context),
        HTTPErrorProcessor(),
        HTTPDefaultErrorHandler(),
    ):
        opener.add_handler(handler)
    return opener


class _Connection(http.client.HTTPConnection):
    """Ends with its time, whatever the other side does: until an address answers, in CONNECT, in its response."""

    _timer: threading.Timer | None = None
    _copy: socket.socket | None = None

    def __init__(self, host: str, *args: Any, **options: Any) -> None:  # noqa: ANN401 - http.client's own
        super().__init__(host, *args, **options)
        # By this attribute http.client makes its socket: the one moment at which the bare socket is at hand.
        self._create_connection = self._connect_in_time

    def _connect_in_time(
        self, address: tuple[str, int], timeout: float, source_address: tuple[str, int] | None = None
    ) -> socket.socket:
        end = time.monotonic() + STEPS * timeout
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
            self._timer = threading.Timer(end - time.monotonic(), _shut, [self._copy])
            self._timer.daemon = True
            # Where the interpreter is going down no thread begins any more, and nothing waits for this one for long.
            with contextlib.suppress(RuntimeError):
                self._timer.start()
            sock.settimeout(timeout)
            return sock
        raise failure

    def getresponse(self) -> http.client.HTTPResponse:
        try:
            return super().getresponse()
        finally:
            self._end_timer()

    def close(self) -> None:
        self._end_timer()
        super().close()

    def _end_timer(self) -> None:
        if self._timer is not None and self._copy is not None:
            self._timer.cancel()
            self._copy.close()


class _TLSConnection(http.client.HTTPSConnection, _Connection):
    pass


class _HTTPHandler(HTTPHandler):
    def http_open(self, req: Request) -> http.client.HTTPResponse:
        return self.do_open(_Connection, req)


class _HTTPSHandler(HTTPSHandler):
    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(context=context)
        self._tls = context

    def https_open(self, req: Request) -> http.client.HTTPResponse:
        return self.do_open(_TLSConnection, req, context=self._tls)


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
