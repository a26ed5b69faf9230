"""The intake as a WSGI app, for Flask and other servers without an event loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING

from dynpin.errors import StoreError

from ..proxies import TrustedProxies
from .intake import Answer, Intake

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

__all__ = ["WSGIIntake"]


class WSGIIntake:
    """A WSGI app that takes violation reports. ``dynpin collect`` on the same file serves the pages."""

    def __init__(self, intake: Intake, close: Callable[[], None], proxies: TrustedProxies) -> None:
        self._intake = intake
        self._proxies = proxies
        self._close = close

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request when its report is on the disk."""
        answer = self._take(environ)
        status = f"{answer.status} {HTTPStatus(answer.status).phrase}"
        start_response(status, answer.headers)
        return [answer.content]

    def close(self) -> None:
        """Store what waits, and close the file."""
        self._close()

    def _take(self, environ: WSGIEnvironment) -> Answer:
        intake = self._intake
        admission = intake.admit(*_head(environ, self._proxies))
        if isinstance(admission, Answer):
            return admission
        body = _read(environ, intake.limits.body)
        if body is None:
            return intake.too_large(admission)
        taken = intake.take(admission, body)
        if taken.stored is not None:
            try:
                taken.stored.result()
            except StoreError as error:
                return intake.overloaded(admission, len(taken.arrivals), error)
        return taken.answer


def _head(environ: WSGIEnvironment, proxies: TrustedProxies) -> tuple[str, str, str | None, Callable[[str], str]]:
    def text(name: str) -> str:
        value = environ.get(name, "")
        return value if isinstance(value, str) else ""

    def header(name: str) -> str:
        variable = name.upper().replace("-", "_")
        # PEP 3333: these two have no HTTP_ prefix.
        return text(variable if variable in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{variable}")

    client = proxies.client(text("REMOTE_ADDR") or None, lambda: header("x-forwarded-for"))
    return text("REQUEST_METHOD"), text("PATH_INFO"), client, header


def _read(environ: WSGIEnvironment, limit: int) -> bytes | None:
    """The body; None if it is longer than the limit."""
    read: Callable[[int], bytes] = environ["wsgi.input"].read
    length = environ.get("CONTENT_LENGTH") or ""
    # PEP 3333: without a length, the end of the input is unknown, unless the server says that it ends the input.
    if not length.isdecimal():
        body = read(limit + 1) if environ.get("wsgi.input_terminated") else b""
    else:
        body = read(min(int(length[:12]), limit + 1))
    return None if len(body) > limit else body
