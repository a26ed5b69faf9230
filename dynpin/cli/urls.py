"""Read URLs and names that a person typed. A wrong one ends the command with a message."""

from __future__ import annotations

import string
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from dynpin.cli.errors import fail
from dynpin.errors import InvalidHost
from dynpin.hosts import canonical_host

__all__ = ["HttpsURL", "host_name", "https_url", "request_target"]


class HttpsURL(NamedTuple):
    """The target of a request.

    Attributes:
        host: the canonical name, for the connection, TLS and the pins.
        port: the port; 443 if the URL has none.
        target: path and query, for the request line.
    """

    host: str
    port: int
    target: str


def https_url(text: str) -> HttpsURL:
    """The parts of an https URL; wrong usage ends the command."""
    _refuse_what_cannot_be_sent(text)
    try:
        parts = urlsplit(text)
    except ValueError as error:
        fail(f"{_short(text)} is not a URL: {error}")
    if parts.scheme != "https" or not parts.hostname:
        fail(
            f"{_short(text)} is not an https URL with a host: write https://HOST/, since pins belong to TLS connections"
        )
    if "@" in parts.netloc:
        # Do not ignore it in silence: https://bank.test@evil.test/ looks like the bank.
        fail(f"{_short(text)} has a user name before its host, which dynpin does not send: remove it and the @")
    try:
        port = 443 if parts.port is None else parts.port
    except ValueError:
        port = 0
    if port == 0:
        fail(f"{_short(text)} is not a URL: its port is not a number from 1 to 65535")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    # urlsplit has made ς of a Σ at the end, where UTS 46 makes σ, as `hosts pin` does.
    host = urlsplit(text.replace("Σ", "σ")).hostname or ""  # noqa: RUF001
    return HttpsURL(host_name(host), port, _percent_encoded(target))


def host_name(text: str) -> str:
    """The canonical form of a host's name or address; wrong usage ends the command."""
    try:
        return canonical_host(text)
    except InvalidHost as error:
        if text and "" in text.removesuffix(".").split("."):
            fail(f"{text[:300]!r} is not a host name: it has a dot too many")
        fail(str(error))


def request_target(path: str) -> str:
    """A path of a site, for the request line; wrong usage ends the command."""
    _refuse_what_cannot_be_sent(path)
    if not path.startswith("/"):
        fail(f"{_short(path)} is not a path of a site: it begins with /")
    return _percent_encoded(path)


def _refuse_what_cannot_be_sent(text: str) -> None:
    for character in text:
        if character.isspace():
            fail(f"{text[:300]!r} contains a space or a line break; in a path, write %20 for a space")
        if not character.isprintable():
            fail(f"{text[:300]!r} contains an invisible character, U+{ord(character):04X}")


def _percent_encoded(target: str) -> str:
    """Encode characters that are not ASCII: UTF-8, percent-encoded, as in browsers (RFC 3987 §3.1)."""
    return quote(target, safe=string.punctuation)


def _short(text: str) -> str:
    return text if len(text) <= 300 else f"{text[:300]}..."
