"""How one violation report is posted: over a connection that is enforced itself, and no redirect (RFC 7469 §2.1.4)."""

from __future__ import annotations

import http.client
import ssl
from typing import IO
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
from dynpin.clientstore.roots import same_roots
from dynpin.clientstore.store import PinStore
from dynpin.clientstore.tls import enforce
from dynpin.errors import PinValidationError

__all__ = ["Post", "reporting_context"]


class Post:
    """Posts reports: with the proxies of the environment, as urllib takes them, and nothing else of the program's."""

    def __init__(self, store: PinStore, context: ssl.SSLContext | None, timeout: float) -> None:
        self._timeout = timeout
        self._opener = OpenerDirector()
        # The handlers are named one by one: an opener with urllib's own would follow redirects and read file: URIs.
        for handler in (
            ProxyHandler(),
            HTTPHandler(),
            HTTPSHandler(context=reporting_context(context, store)),
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
            return _printable(str(error.reason))
        except (OSError, http.client.HTTPException, ValueError) as error:
            return _printable(str(error)) or type(error).__name__
        return None


def _printable(text: str) -> str:
    # It may be the other side's text, and it goes to a terminal.
    return "".join(char if char.isprintable() else "?" for char in text)[:200]


def reporting_context(context: ssl.SSLContext | None, store: PinStore) -> ssl.SSLContext:
    """A context that trusts what `context` trusts, shows no client certificate, is enforced and reports nothing."""
    return enforce(same_roots(context), store, reporter=None)
