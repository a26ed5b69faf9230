"""How one violation report is posted: over a connection that is enforced itself, and no redirect (RFC 7469 §2.1.4)."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import time
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
)

from dynpin._version import __version__
from dynpin.errors import PinValidationError

from ..enforcement import Enforcement, guard, same_roots
from ..store import PinStore

__all__ = ["Post", "reporting_context"]


# An attempt takes so many times the timeout of one step at most: each byte that drips in begins that one anew.
_STEPS = 3


class Post:
    """Posts reports: with the proxies of the environment, as urllib takes them, and nothing else of the program's.

    `timeout` is that of each step, in seconds; a whole attempt takes three times as long at most.
    """

    def __init__(self, store: PinStore, context: ssl.SSLContext | None, timeout: float) -> None:
        self._timeout = timeout
        self._opener = OpenerDirector()
        # The handlers are named one by one: an opener with urllib's own would follow redirects and read file: URIs.
        for handler in (
            ProxyHandler(),
            _HTTPHandler(),
            _HTTPSHandler(context=reporting_context(context, store)),
            HTTPErrorProcessor(),
            HTTPDefaultErrorHandler(),
        ):
            self._opener.add_handler(handler)

    def __call__(self, report_uri: str, body: str) -> str | None:
        """Post one report; None where it was taken, else why not."""
        request = Request(  # noqa: S310 - the queue takes http and https alone
            report_uri,
            data=body.encode(),
            headers={"Content-Type": "application/json", "User-Agent": f"dynpin/{__version__}"},
            method="POST",
        )
        begun = time.monotonic()
        failure = self._post(request)
        if failure is not None and time.monotonic() - begun >= _STEPS * self._timeout:
            return f"it took longer than {_STEPS * self._timeout:g} seconds"
        return failure

    def _post(self, request: Request) -> str | None:
        try:
            answer: IO[bytes] | None = self._opener.open(request, timeout=self._timeout)
            if answer is None:
                return "no handler for this report-uri"
            answer.close()
        except HTTPError as error:
            error.close()
            return f"it answered {error.code} {_printable(str(error.reason))}".rstrip()
        except URLError as error:
            if isinstance(error.reason, PinValidationError):
                return f"its host fails Pin Validation itself: {str(error.reason).splitlines()[0]}"
            return _in_words(error.reason)
        except (OSError, http.client.HTTPException, ValueError) as error:
            return _in_words(error)
        return None


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
        end = time.monotonic() + _STEPS * timeout
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


def _in_words(error: str | BaseException) -> str:
    """What went wrong, without the number that an error of the system begins with."""
    return _printable(getattr(error, "strerror", None) or str(error)) or type(error).__name__


def _printable(text: str) -> str:
    # It may be the other side's text, and it goes to a terminal.
    return "".join(char if char.isprintable() else "?" for char in text)[:200]


def reporting_context(context: ssl.SSLContext | None, store: PinStore) -> ssl.SSLContext:
    """A context that trusts what `context` trusts, shows no client certificate, is enforced and reports nothing."""
    enforced = same_roots(context)
    guard(enforced, Enforcement(store))
    return enforced
