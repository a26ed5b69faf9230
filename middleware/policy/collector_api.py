"""Ask a collector over its API: with a token and own roots, bounded time and size, and no redirect."""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import os
import socket
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from dynpin.files import read_file

__all__ = ["Answer", "CollectorAPI", "Unusable"]

# Seconds for each wait, and for a whole request, also if the answer comes slowly.
_TIMEOUT, _LONGEST_REQUEST = 10.0, 20.0
_LONGEST_ANSWER = 4 << 20


class Unusable(Exception):
    """The collector cannot be asked, because of a file or the address; the message says why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of the collector.

    Attributes:
        status: the status.
        fields: the header fields, names in lower case.
        body: the body.
    """

    status: int
    fields: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class CollectorAPI:
    """A collector, and how to ask it.

    Attributes:
        url: its address, without a slash at its end.
        token_file: the file with a token of its API in the first line; None: use DYNPIN_COLLECTOR_TOKEN, if it is set.
        ca: the file of roots, PEM, for https; None: the roots of the system.
    """

    url: str
    token_file: Path | None = None
    ca: Path | None = None

    def ask(
        self, path: str, method: str = "GET", fields: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Answer:
        """Send one request with the token.

        Raises:
            Unusable: if a file cannot be read, or the token would be sent over http.
            OSError, http.client.HTTPException: if there was no answer.
        """
        return self.send(f"{self.url}{path}", method, {**self._authorization(), **(fields or {})}, body)

    def send(self, url: str, method: str, fields: Mapping[str, str], body: bytes | None = None) -> Answer:
        """Send one request without the token.

        Raises:
            Unusable, OSError, http.client.HTTPException: see :meth:`ask`.
        """
        # http.client follows no redirect and ignores proxies of the environment: the token goes only to this host.
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        # Reading the roots of the system takes long, so http does without. A file of roots must be right for http too.
        context = self._context() if parts.scheme == "https" or self.ca is not None else None
        connection = (
            http.client.HTTPSConnection(host, port, timeout=_TIMEOUT, context=context)
            if parts.scheme == "https"
            else http.client.HTTPConnection(host, port, timeout=_TIMEOUT)
        )
        # A timeout bounds only one wait. An answer that comes a byte at a time would never end.
        watch = threading.Timer(_LONGEST_REQUEST, _break, (connection,))
        watch.daemon = True
        watch.start()
        try:
            path = quote(parts.path, safe="/%") + (f"?{parts.query}" if parts.query else "")
            connection.request(method, path, body, dict(fields))
            response = connection.getresponse()
            answered = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, answered, response.read(_LONGEST_ANSWER))
        except ssl.SSLCertVerificationError as error:
            raise Unusable(self._unverified(f"{parts.scheme}://{parts.netloc}", error)) from None
        finally:
            watch.cancel()
            connection.close()

    def _authorization(self) -> dict[str, str]:
        file = self.token_file
        if file is None:
            token = os.environ.get("DYNPIN_COLLECTOR_TOKEN", "").strip()
        else:
            token = _text(file, "the token file").partition("\n")[0].strip()
            if not token:
                raise Unusable(
                    f"the token file {file} has no token in its first line: write one there (dynpin collect api-tokens "
                    "add makes it)"
                )
        if not token:
            return {}
        if not token.isascii() or not token.isprintable():
            raise Unusable(
                f"{file or 'DYNPIN_COLLECTOR_TOKEN'} has a text that cannot be a token: no header can carry it"
            )
        parts = urlsplit(self.url)
        if parts.scheme != "https" and not _is_loopback(parts.hostname or ""):
            raise Unusable(f"the token is not sent to {self.url}: others could read it over http; use https")
        return {"Authorization": f"Bearer {token}"}

    def _unverified(self, origin: str, error: ssl.SSLCertVerificationError) -> str:
        """Why the certificate of the collector is refused, and what to do."""
        match error.verify_code:
            case 9 | 10:  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED
                advice = "renew it on the collector, and check that the clock of this machine is right"
            case 62 | 64:  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
                advice = "use a name of the certificate, or issue a certificate for this name"
            case _:
                roots = "the roots of the system are used" if self.ca is None else f"the roots are those of {self.ca}"
                advice = f"{roots}; name its root, PEM, in the line ca"
        reason = error.verify_message.rstrip(".")
        return f"the certificate of {origin} is refused: {reason}. To fix it: {advice}"

    def _context(self) -> ssl.SSLContext:
        """The TLS context for the collector: with the roots of `ca`, or those of the system."""
        if self.ca is None:
            return ssl.create_default_context()
        roots = _text(self.ca, "the roots of the collector,")
        try:
            return ssl.create_default_context(cadata=roots)
        except (ssl.SSLError, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise Unusable(f"the roots of the collector, {self.ca}, are not certificates in PEM ({reason})") from None


def _break(connection: http.client.HTTPConnection) -> None:
    sock: socket.socket | None = connection.sock
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


def _text(file: Path, what: str) -> str:
    try:
        return read_file(file).decode("utf-8-sig")
    except OSError as error:
        why = error.strerror or error
        raise Unusable(f"{what} {file} cannot be read ({why}): check its path and permissions") from None
    except ValueError:
        raise Unusable(f"{what} {file} is not UTF-8 text: is it the right file?") from None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
