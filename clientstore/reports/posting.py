"""Post a violation report over an enforced connection, without redirects (RFC 7469 §2.1.4)."""

from __future__ import annotations

import http.client
import ssl
import time
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.request import Request

from dynpin._version import __version__
from dynpin.errors import PinValidationError

from ..bounded_http import STEPS, bounded_opener
from ..enforcement import Enforcement, guard, same_roots
from ..store import PinStore

__all__ = ["Post", "reporting_context"]


class Post:
    """Posts reports. It uses the proxies of the environment, as urllib does, and nothing else of the program's.

    `timeout` is for each step, in seconds. A whole attempt takes at most three times as long.
    """

    def __init__(self, store: PinStore, context: ssl.SSLContext | None, timeout: float) -> None:
        self._timeout = timeout
        self._opener = bounded_opener(reporting_context(context, store))

    def __call__(self, report_uri: str, body: str) -> str | None:
        """Post one report. Returns None if it was accepted, else the reason."""
        request = Request(  # noqa: S310 - the queue takes http and https alone
            report_uri,
            data=body.encode(),
            headers={"Content-Type": "application/json", "User-Agent": f"dynpin/{__version__}"},
            method="POST",
        )
        begun = time.monotonic()
        failure = self._post(request)
        if failure is not None and time.monotonic() - begun >= STEPS * self._timeout:
            return f"it took longer than {STEPS * self._timeout:g} seconds"
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


def _in_words(error: str | BaseException) -> str:
    """The text of an error, without the number at the beginning of a system error."""
    return _printable(getattr(error, "strerror", None) or str(error)) or type(error).__name__


def _printable(text: str) -> str:
    # The text may come from the other side, and goes to a terminal.
    return "".join(char if char.isprintable() else "?" for char in text)[:200]


def reporting_context(context: ssl.SSLContext | None, store: PinStore) -> ssl.SSLContext:
    """A context with the roots of `context`. It shows no client certificate, is enforced, and reports nothing."""
    enforced = same_roots(context)
    guard(enforced, Enforcement(store))
    return enforced
