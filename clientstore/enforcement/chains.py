"""What CPython's ssl knows about the certificate chains of a connection, with one interface for all versions."""

from __future__ import annotations

import _ssl
import ssl
from collections.abc import Callable
from typing import Any, Protocol, cast

__all__ = [
    "CHAIN",
    "NAME",
    "Certificate",
    "Inner",
    "add_option",
    "der",
    "inner",
    "is_context",
    "strictness",
    "unverified_chain",
    "verified_chain",
]

_Connection = ssl.SSLSocket | ssl.SSLObject
_CERT_REQUIRED = int(ssl.CERT_REQUIRED)
_DER = 2  # _ssl.ENCODING_DER
CHAIN, NAME = 1, 2
# CPython's _ssl class below every context. truststore.inject_into_ssl() replaces ssl.SSLContext, but not this one.
_OF_OPENSSL: type = getattr(_ssl, "_SSLContext")  # noqa: B009 - it has no other name
# A plain number: to make a member of the enumeration, as ssl does, takes ten times as long.
_verify_mode: Callable[[ssl.SSLContext], int] = vars(_OF_OPENSSL)["verify_mode"].__get__
_options: Any = vars(_OF_OPENSSL)["options"]


class Certificate(Protocol):
    """A certificate as OpenSSL holds it. Two are equal if their encodings are equal."""

    def public_bytes(self, encoding: int, /) -> bytes:
        """The certificate's encoding; 2 is DER."""
        ...


class Inner(Protocol):
    """The object of CPython's ``_ssl`` inside every SSLSocket and SSLObject."""

    @property
    def server_hostname(self) -> str | None:
        """The name that TLS used."""
        ...

    @property
    def session_reused(self) -> bool:
        """Whether the handshake resumed a session. Such a handshake has no chain of its own."""
        ...

    def getpeercert(self) -> dict[str, object] | None:
        """The fields of the certificate, if its chain was verified."""
        ...

    def get_verified_chain(self) -> list[Certificate] | None:
        """The chain that OpenSSL built and verified."""
        ...

    def get_unverified_chain(self) -> list[Certificate] | None:
        """The certificates as the server sent them."""
        ...


def is_context(value: object) -> bool:
    """Whether the value is a context of OpenSSL, even if ``ssl.SSLContext`` was replaced."""
    return isinstance(value, _OF_OPENSSL)


def strictness(context: ssl.SSLContext) -> int:
    """How much the context verifies: nothing, the CHAIN, or the CHAIN and the host NAME.

    A chain proves nothing unless both are verified.
    """
    if _verify_mode(context) != _CERT_REQUIRED:
        return 0
    return NAME if context.check_hostname else CHAIN


def add_option(context: ssl.SSLContext, option: int) -> None:
    """Set an option, and keep those that the context has."""
    # Not `context.options`: after truststore.inject_into_ssl() its setter calls itself without end.
    _options.__set__(context, _options.__get__(context) | option)


def inner(connection: _Connection) -> Inner | None:
    """The object of ``_ssl`` inside the connection; None before it is connected and after it was unwrapped."""
    return cast("Inner | None", getattr(connection, "_sslobj", None))


def verified_chain(connection: _Connection) -> tuple[bytes, ...]:
    """The chain that OpenSSL built and verified, DER, leaf first; empty if the session was resumed."""
    tls = inner(connection)
    # The public method came with Python 3.13; the inner object has had it since 3.10. For a resumed session the inner
    # one returns None, the public one an empty list.
    return () if tls is None else der(tls.get_verified_chain())


def unverified_chain(connection: _Connection) -> tuple[bytes, ...]:
    """The certificates as the server sent them, DER, leaf first."""
    tls = inner(connection)
    return () if tls is None else der(tls.get_unverified_chain())


def der(chain: list[Certificate] | None) -> tuple[bytes, ...]:
    """The certificates in DER."""
    return tuple([certificate.public_bytes(_DER) for certificate in chain or ()])
