"""What CPython's ssl tells of a connection's certificate chains, in one way for every version."""

from __future__ import annotations

import ssl
from typing import Protocol, cast

__all__ = ["has_tls", "is_strict", "session_id", "unverified_chain", "verified_chain"]

_Connection = ssl.SSLSocket | ssl.SSLObject
_CERT_REQUIRED = int(ssl.CERT_REQUIRED)
_DER = 2  # _ssl.ENCODING_DER


class _Certificate(Protocol):
    def public_bytes(self, encoding: int, /) -> bytes: ...


class _Inner(Protocol):
    def get_verified_chain(self) -> list[_Certificate] | None: ...
    def get_unverified_chain(self) -> list[_Certificate] | None: ...


def is_strict(context: ssl.SSLContext) -> bool:
    """Whether the context demands a verified chain and the right host name: without both, a chain is no proof."""
    # The base class gives the plain number; making an enumeration member of it takes ten times as long.
    mode: int = super(ssl.SSLContext, context).verify_mode
    return mode == _CERT_REQUIRED and context.check_hostname


def has_tls(connection: _Connection) -> bool:
    """Whether there is TLS on the connection: not before it is connected, nor after it was unwrapped."""
    return _inner(connection) is not None


def verified_chain(connection: _Connection) -> tuple[bytes, ...]:
    """The chain that OpenSSL built and verified, DER, leaf first; empty where the session was resumed."""
    inner = _inner(connection)
    # The public method came with Python 3.13; the inner object has had it since 3.10. It gives None for a resumed
    # session, where the public one gives an empty list.
    return _der(inner.get_verified_chain() if inner is not None else None)


def unverified_chain(connection: _Connection) -> tuple[bytes, ...]:
    """The certificates as the server sent them, DER, leaf first."""
    inner = _inner(connection)
    return _der(inner.get_unverified_chain() if inner is not None else None)


def session_id(connection: _Connection) -> bytes | None:
    """The id of the TLS session that the connection has made or resumed."""
    session = connection.session
    return None if session is None else bytes(session.id)


def _inner(connection: _Connection) -> _Inner | None:
    return cast("_Inner | None", getattr(connection, "_sslobj", None))


def _der(chain: list[_Certificate] | None) -> tuple[bytes, ...]:
    return tuple([certificate.public_bytes(_DER) for certificate in chain or ()])
