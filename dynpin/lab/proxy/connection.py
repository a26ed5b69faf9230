"""The second place that enforces: pyOpenSSL's connection is checked against the pins at the end of its handshake."""

# mitmproxy and pyOpenSSL are not installed in the environment for type checks.
# pyright: reportMissingImports=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUntypedBaseClass=false, reportUnknownArgumentType=false, reportUnknownParameterType=false
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from OpenSSL import SSL, crypto

from dynpin.clientstore.enforcement import Enforcement, Handshake, Peer, request_site
from dynpin.errors import PinValidationError

__all__ = ["GuardedConnection", "PinRefusal", "ShutConnection"]


class PinRefusal(SSL.Error):  # type: ignore[misc, unused-ignore] # Any where pyOpenSSL is absent
    """Pin Validation failed. mitmproxy treats it as an error of TLS: it closes the connection and sends nothing."""

    def __init__(self, violation: PinValidationError) -> None:
        super().__init__(str(violation))
        self.violation = violation

    def __repr__(self) -> str:
        # mitmproxy's own error page shows this text after the word "OpenSSL".
        return (
            f"finished the handshake, and dynpin refused it: {str(self.violation).splitlines()[0]} "
            "No request was sent. Open the page again to read more."
        )


class ShutConnection:
    """A connection that passes nothing. It takes the place of a guarded one until that is made."""

    def __bool__(self) -> bool:
        """Return False, so that mitmproxy closes the connection at once. It would ignore an error in the first step."""
        return False

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever is asked for
        raise SSL.Error("this connection could not be checked against the pins, so nothing is sent on it")


class GuardedConnection:
    """A client's ``OpenSSL.SSL.Connection`` that passes no byte before its handshake has passed Pin Validation.

    pyOpenSSL tells whether the certificate was verified. It does not tell whether it was verified for the host's name;
    mitmproxy sets up its connections to do that.

    Args:
        connection: the connection as mitmproxy made it, before the handshake.
        enforcement: the rule, the same as :func:`dynpin.clientstore.enforce` sets for the standard library's sockets.
        name: the name of the connection if TLS sends none, an IP address.
        port: the port of the site, for reports.
        on_passed: called with the proof of the handshake.
        on_refused: called with the violation and the validated chain, DER, before the handshake fails.
    """

    def __init__(
        self,
        connection: SSL.Connection,
        enforcement: Enforcement,
        *,
        name: str | None,
        port: int,
        on_passed: Callable[[Peer], None],
        on_refused: Callable[[PinValidationError, tuple[bytes, ...]], None],
    ) -> None:
        self._connection = connection
        self._enforcement = enforcement
        self._name = name
        self._port = port
        self._on_passed = on_passed
        self._on_refused = on_refused
        self._strict = _is_strict(connection)
        self._passed = False
        self._refusal: PinRefusal | None = None

    @property
    def refused(self) -> bool:
        """Whether Pin Validation has failed."""
        return self._refusal is not None

    def do_handshake(self) -> None:
        """Like pyOpenSSL's. Raises :class:`PinRefusal`, now and at every later use, if Pin Validation fails."""
        if self._refusal is not None:
            raise self._refusal
        self._connection.do_handshake()
        if not self._passed:
            self._check()

    def recv(self, bufsiz: int, flags: int | None = None) -> bytes:
        """Like pyOpenSSL's, after the handshake has passed."""
        self._ready()
        try:
            received: bytes = self._connection.recv(bufsiz, flags)
        finally:
            self._same_handshake()
        return received

    def sendall(self, buf: bytes, flags: int = 0) -> int:
        """Like pyOpenSSL's, after the handshake has passed."""
        self._ready()
        self._same_handshake()
        sent: int = self._connection.sendall(buf, flags)
        return sent

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - pyOpenSSL's own
        # OpenSSL would run an unchecked handshake inside a read or a write.
        if name in ("send", "write", "read", "recv_into"):
            self._ready()
        return getattr(self._connection, name)

    def _ready(self) -> None:
        if not self._passed:
            self.do_handshake()

    def _same_handshake(self) -> None:
        # A renegotiation could change the certificate after the check. mitmproxy treats this as the end of the stream.
        if self._connection.total_renegotiations():
            raise SSL.ZeroReturnError

    def _check(self) -> None:
        connection = self._connection
        sent_name = connection.get_servername()
        host = self._name if sent_name is None else sent_name.decode("ascii")
        validated = _der(connection.get_verified_chain())

        def served() -> tuple[bytes, ...]:
            return _der(connection.get_peer_cert_chain())

        token = request_site.set((host or "", self._port))
        try:
            proof = self._enforcement.check(
                Handshake(
                    asked=host if self._name is None else self._name,
                    name=host,
                    strict=self._strict and _is_strict(connection),
                    chain=[_Certificate(der) for der in validated],
                    # mitmproxy resumes no session. If another add-on does, there is no verified chain.
                    resumed=not validated,
                    earlier=None,
                    served=served,
                    may_wait=False,
                )
            )
        except PinValidationError as violation:
            self._refusal = PinRefusal(violation)
            self._on_refused(violation, validated)
            raise self._refusal from violation
        finally:
            request_site.reset(token)
        self._passed = True
        self._on_passed(Peer(proof.host, proof.pins, proof.validated, served, self._enforcement.reporter))


@dataclass(frozen=True, slots=True)
class _Certificate:
    """A certificate in the form that the rule needs: pyOpenSSL's own are not equal if their encodings are."""

    der: bytes

    def public_bytes(self, encoding: int, /) -> bytes:
        return self.der


def _is_strict(connection: SSL.Connection) -> bool:
    return bool(connection.get_verify_mode() & SSL.VERIFY_PEER)


def _der(chain: list[crypto.X509] | None) -> tuple[bytes, ...]:
    return tuple([crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate) for certificate in chain or ()])
