"""One visit of `dynpin get`: a request with the client for http.client, and its result."""

from __future__ import annotations

import base64
import http.client
import ssl
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from dynpin._version import __version__
from dynpin.cli.errors import fail, reason_of
from dynpin.cli.stores import open_store
from dynpin.cli.urls import HttpsURL
from dynpin.clientstore import peer_of
from dynpin.clientstore.http_client import PinnedHTTPSConnection
from dynpin.clientstore.store.formats import describe
from dynpin.deploy.trust import trusting
from dynpin.errors import PinValidationError
from dynpin.hosts import KnownPinnedHost, canonical_host
from dynpin.noting import Noting
from dynpin.pins import Pin

__all__ = ["Visit", "visit"]

# X509_V_ERR of OpenSSL: the chain ends in a certificate that is not a trusted root, or before one.
_NO_ROOT = (18, 19, 20, 21)


@dataclass(frozen=True, slots=True)
class Visit:
    """The result of a visit.

    Attributes:
        host: the canonical host.
        noting: the effect of the response on its pins; if Pin Validation failed, the reason.
        status: status code and reason phrase from the server; empty if the connection was refused.
        body: the body of the response, if it was requested.
        chain: the pins of the validated chain.
        known_host: the entry that applies now.
        violation: why Pin Validation failed.
    """

    host: str
    noting: Noting
    status: str = ""
    body: bytes = b""
    chain: tuple[Pin, ...] = ()
    known_host: KnownPinnedHost | None = None
    violation: PinValidationError | None = None

    def as_json(self) -> dict[str, object]:
        """The result as JSON."""
        refused = self.violation is not None and not self.status
        return {
            "ok": self.violation is None,
            "status": self.status or None,
            "outcome": "refused" if refused else self.noting.outcome,
            "reason": self.noting.reason,
            "section": self.noting.section,
            "chain": [str(pin) for pin in self.chain],
            "known_host": self.known_host and describe(self.known_host),
        }


def visit(
    url: HttpsURL, *, store: Path | None, roots: Path | None, audit: bool, with_body: bool, timeout: float
) -> Visit:
    """GET a URL. If there is no answer for another reason than Pin Validation, the command ends.

    Args:
        url: the URL.
        store: the pin store's file, or None for the user's own.
        roots: the roots to trust (PEM), or None for the system's.
        audit: whether a connection that fails Pin Validation is let through.
        with_body: whether the body is read.
        timeout: how long to wait for each step, in seconds.
    """
    violations: list[PinValidationError] = []
    context = trusting(roots)
    proxy = _proxy(url)
    with open_store(store) as pins:
        connection = PinnedHTTPSConnection(
            url.host if proxy is None else proxy.host,
            url.port if proxy is None else proxy.port,
            store=pins,
            context=context,
            timeout=timeout,
            on_mismatch="report" if audit else "refuse",
            on_violation=violations.append,
        )
        if proxy is not None:
            connection.set_tunnel(url.host, url.port, headers=proxy.headers)
        try:
            connection.connect()
            peer = peer_of(connection.sock)
            connection.request("GET", url.target, headers={"User-Agent": f"dynpin/{__version__}"})
            response = connection.getresponse()
            body = response.read() if with_body else b""
        except PinValidationError as refusal:
            return _failed(url.host, refusal)
        except ssl.SSLCertVerificationError as error:
            hint = ". Name the roots of your own CA with --ca FILE" if error.verify_code in _NO_ROOT else ""
            fail(f"{url.host} port {url.port} shows a certificate that is not valid: {error.verify_message}{hint}")
        except (OSError, http.client.HTTPException, ValueError, OverflowError) as error:
            by = "" if proxy is None else f" through the proxy {proxy.host} port {proxy.port}"
            fail(reason_of(error, f"{url.host} port {url.port} gave no answer{by}"))
        finally:
            connection.close()
        status = f"{response.status} {response.reason}"
        if violations:
            return _failed(url.host, violations[0], status, body)
        assert connection.noting is not None  # noqa: S101 - there was a response
        chain = peer.pins if peer else ()
        return Visit(url.host, connection.noting, status, body, chain, pins.known_host(url.host))


def _failed(host: str, violation: PinValidationError, status: str = "", body: bytes = b"") -> Visit:
    validation = violation.validation
    if validation is None:
        return Visit(host, Noting("ignored", str(violation), "2.6"), status, body, violation=violation)
    noting = Noting("ignored", validation.reason, validation.section)
    return Visit(host, noting, status, body, validation.chain, validation.known_host, violation)


class _Proxy(NamedTuple):
    host: str
    port: int
    headers: dict[str, str]


def _proxy(url: HttpsURL) -> _Proxy | None:
    """The proxy for a URL from the environment, with the same rules as curl, requests and httpx; or None."""
    named = urllib.request.getproxies()
    variable = "HTTPS_PROXY" if named.get("https") else "ALL_PROXY"
    text = named.get("https") or named.get("all")
    if not text or urllib.request.proxy_bypass(f"{url.host}:{url.port}"):
        return None
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        port = parts.port or http.client.HTTP_PORT
        host = canonical_host(parts.hostname or "")
    except ValueError:  # InvalidHost too
        fail(f"{variable} is not the URL of a proxy: write http://HOST:PORT")
    if parts.scheme != "http":
        fail(f"get goes through proxies of the form http://HOST:PORT, and {variable} begins with {parts.scheme}://")
    headers: dict[str, str] = {}
    if parts.username is not None:
        told = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Proxy-Authorization"] = f"Basic {base64.b64encode(told.encode()).decode()}"
    return _Proxy(host, port, headers)
