"""`dynpin get URL`: visit a site as a pinning client does, and say what happened to its pins."""

from __future__ import annotations

import http.client
import json
import ssl
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from dynpin._version import __version__
from dynpin.cli.errors import fail, finding
from dynpin.clientstore import PinStore, enforce, peer_of
from dynpin.clientstore.enforcement.decision import request_site
from dynpin.clientstore.store.formats import describe
from dynpin.errors import PinValidationError
from dynpin.header import ENFORCE_NAME
from dynpin.noting import Noting
from dynpin.pins import Pin
from dynpin.report import rfc3339

__all__ = ["StoreOption", "get"]

# X509_V_ERR of OpenSSL: the chain ends in a certificate that is no trusted root, or before one.
_NO_ROOT = (18, 19, 20, 21)

StoreOption = Annotated[
    Path | None, typer.Option("--store", help="The pin store's file; without it, the one in your data folder.")
]


def get(
    url: Annotated[str, typer.Argument(help="An https URL.")],
    store: StoreOption = None,
    ca: Annotated[Path | None, typer.Option("--ca", help="Trust these roots (PEM) and no others.")] = None,
    body: Annotated[bool, typer.Option("--body", help="Print the body of the response to stdout as well.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the site.")] = 20.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Visit URL with a pin store: enforce what is pinned, note what the response pins, and print what was decided.

    Exit code 1 where Pin Validation refuses the connection: nothing was sent then.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or 443
    except ValueError as error:
        fail(f"{url} is no URL: {error}")
    if parts.scheme != "https" or parts.hostname is None:
        fail(f"{url} is no https URL with a host: pins belong to TLS connections")
    with PinStore(store) as pins:
        visit = _visit(pins, url, parts.hostname, port, _context(ca), timeout)
        known = pins.known_host(parts.hostname)
    if as_json:
        typer.echo(json.dumps({"url": url, **visit.as_json(), "known_host": known and describe(known)}, indent=2))
    elif visit.refusal is None:
        typer.echo(f"{parts.hostname} answered {visit.status}")
        typer.echo(f"  {visit.noting.outcome:<9}{visit.noting.reason} (RFC 7469 §{visit.noting.section})")
        for label, shown in (("shown", visit.chain), ("pinned", known.pins if known else ())):
            for index, pin in enumerate(shown):
                typer.echo(f"  {label if index == 0 else '':<9}{pin}")
        if known is not None and known.expires_at is not None:
            typer.echo(f"  {'until':<9}{rfc3339(known.expires_at)}")
    if visit.refusal is not None:
        finding(None if as_json else str(visit.refusal))
    if body:
        sys.stdout.buffer.write(visit.body)


@dataclass(frozen=True)
class _Visit:
    noting: Noting
    status: str = ""
    body: bytes = b""
    chain: tuple[Pin, ...] = ()
    refusal: PinValidationError | None = None

    def as_json(self) -> dict[str, object]:
        return {
            "ok": self.refusal is None,
            "status": self.status or None,
            "outcome": "refused" if self.refusal else self.noting.outcome,
            "reason": self.noting.reason,
            "section": self.noting.section,
            "chain": [str(pin) for pin in self.chain],
        }


def _visit(pins: PinStore, url: str, host: str, port: int, context: ssl.SSLContext, timeout: float) -> _Visit:
    request_site.set((host, port))
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection = http.client.HTTPSConnection(host, port, timeout=timeout, context=enforce(context, pins))
    try:
        connection.connect()
        peer = peer_of(connection.sock)
        connection.request("GET", target, headers={"User-Agent": f"dynpin/{__version__}"})
        response = connection.getresponse()
        body = response.read()
    except PinValidationError as refusal:
        validation = refusal.validation
        reason = validation.reason if validation else str(refusal)
        chain = validation.chain if validation else ()
        return _Visit(
            Noting("ignored", reason, validation.section if validation else "2.6"), chain=chain, refusal=refusal
        )
    except ssl.SSLCertVerificationError as error:
        hint = ". Name the roots of an authority of your own by --ca" if error.verify_code in _NO_ROOT else ""
        fail(f"{host} port {port} shows a certificate that is not valid: {error.verify_message}{hint}")
    except (OSError, http.client.HTTPException) as error:
        fail(f"{host} port {port} gave no answer: {getattr(error, 'strerror', None) or error}")
    finally:
        connection.close()
    chain = peer.pins if peer else ()
    noting = pins.note(host, response.headers.get_all(ENFORCE_NAME) or [], chain)
    return _Visit(noting, f"{response.status} {response.reason}", body, chain)


def _context(ca: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        fail(f"{ca} holds no roots that can be trusted: {error.strerror or error}")
