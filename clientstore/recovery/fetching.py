"""Read the files of a repository from their URI or from a folder, with limits on size and time.

The transport need not be trusted, since the signatures count. So it skips Pin Validation, which may be the very thing
that fails. It sends nothing of the program's: no cookie, no credentials, nothing of the request that was refused.
"""

from __future__ import annotations

import http.client
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request

from tuf.api.exceptions import DownloadError, DownloadHTTPError
from tuf.ngclient import FetcherInterface  # pyright: ignore[reportPrivateImportUsage]

from dynpin._version import __version__
from dynpin.counts import plural

from ..bounded_http import bounded_opener

__all__ = ["FolderFetcher", "HTTPFetcher"]

# How long one step may take, in seconds; and the most bytes that all files of a list may have.
_STEP = 5.0
_MOST_BYTES = 16_000_000
_PIECE = 65_536
# OpenSSL's X509_V_ERR codes for a chain that does not end in a trusted root.
_NO_ROOT = (18, 19, 20, 21)


class HTTPFetcher(FetcherInterface):
    """Reads files over HTTP, for one look.

    Args:
        seconds: how long the look may take.
        context: its roots verify an https URI; None for the system's.
    """

    def __init__(self, seconds: float, context: ssl.SSLContext | None = None) -> None:
        context = ssl.create_default_context() if context is None else context
        # If pins were injected into every context, `dynpin_exempt` exempts this one, or the one inside truststore's.
        target: Any = getattr(context, "_ctx", context)
        for name in ("sslsocket_class", "sslobject_class"):
            setattr(target, name, type("Unpinned", (getattr(target, name),), {"dynpin_exempt": True}))
        self._seconds = seconds
        self._end = time.monotonic() + seconds
        self._opener = bounded_opener(context, until=self._end)
        self._left = _MOST_BYTES

    def _fetch(self, url: str) -> Iterator[bytes]:
        request = Request(url, headers={"User-Agent": f"dynpin/{__version__}"})  # noqa: S310 - http and https alone
        left = self._check_time()
        try:
            answer: Any = self._opener.open(request, timeout=min(_STEP, left))
        except HTTPError as error:
            error.close()
            if 300 <= error.code < 400:
                raise DownloadError(f"{url} is redirected, and no redirect is followed") from None
            raise DownloadHTTPError(f"{url} answered {error.code}", error.code) from None
        except (URLError, OSError, http.client.HTTPException, ValueError) as error:
            self._check_time()
            reason = error.reason if isinstance(error, URLError) else error
            raise DownloadError(f"{url} cannot be read: {_why(reason)}") from None
        return self._pieces(url, answer)

    def _pieces(self, url: str, answer: Any) -> Iterator[bytes]:  # noqa: ANN401 - urllib's own
        with answer:
            while True:
                try:
                    piece: bytes = answer.read1(_PIECE)
                except (OSError, http.client.HTTPException) as error:
                    self._check_time()
                    raise DownloadError(f"{url} was cut off: {error}") from None
                self._check_time()
                if not piece:
                    return
                self._left -= len(piece)
                if self._left < 0:
                    raise DownloadError(f"its files have more than {_MOST_BYTES} bytes")
                yield piece

    def _check_time(self) -> float:
        """How many seconds are left; raises DownloadError if there are none."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise DownloadError(f"it took longer than {self._seconds:g} {plural(self._seconds, 'second')}")
        return left


class FolderFetcher(FetcherInterface):
    """Reads a folder, such as a USB stick, as if it were published at `uri`; or one file, which is the whole list."""

    def __init__(self, folder: Path, uri: str) -> None:
        self._folder = folder
        self._base = f"{uri.rstrip('/')}/"

    def _fetch(self, url: str) -> Iterator[bytes]:
        file = self._folder if self._folder.is_file() else self._folder / url.removeprefix(self._base)
        if not file.is_file():
            raise DownloadHTTPError(f"there is no {file}", 404)
        with file.open("rb") as opened:
            while piece := opened.read(_PIECE):
                yield piece


def _why(reason: object) -> str:
    """Why nothing could be read, for a person."""
    if isinstance(reason, ssl.SSLCertVerificationError):
        hint = ". If your own CA signed it, name the CA's roots" if reason.verify_code in _NO_ROOT else ""
        return f"the certificate is not valid: {reason.verify_message}{hint}"
    return getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
