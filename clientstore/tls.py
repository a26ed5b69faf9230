"""The one place that enforces: after the TLS handshake, before the first byte (RFC 7469 §2.6).

An ``ssl.SSLContext`` names the classes of its sockets. :func:`enforce` puts in subclasses that run Pin Validation at
the end of the handshake, so every library that takes a context is covered by the same few lines.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
import sys
import weakref
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, TypeVar, cast

from dynpin.clientstore.chains import inner, is_context, is_strict, session_id, unverified_chain
from dynpin.clientstore.enforcement import Enforcement, Peer, PrivateRoots, Proof, Reporter
from dynpin.clientstore.reporting import ReportMode, ReportQueue
from dynpin.clientstore.store import PinStore
from dynpin.errors import PinValidationError, UnenforceableContext

__all__ = ["enforce", "peer_of"]

_Context = TypeVar("_Context", bound=ssl.SSLContext)


def enforce(
    context: _Context,
    store: PinStore,
    *,
    private_roots: PrivateRoots = "enforce",
    public_roots: Iterable[bytes] | None = None,
    on_violation: Callable[[PinValidationError], None] | None = None,
    reporter: Reporter | ReportMode | None = "all",
) -> _Context:
    """Make every connection of this context refuse a wrong key before it sends a byte, and return the context.

    Works on any client ``ssl.SSLContext``: your own roots, client certificates and options stay as they are.
    A refusal raises :class:`~dynpin.PinValidationError` out of the handshake, which each HTTP library treats as the
    certificate failure that it is.

    Args:
        context: the context to harden. It must verify certificates and host names; where it does not, or ceases to,
            connections to Known Pinned Hosts are refused and nothing is noted.
        store: the Known Pinned Hosts.
        private_roots: ``"enforce"``, or ``"bypass"`` for the browsers' rule: no Pin Validation for a chain that ends
            in a root which is not among the public ones.
        public_roots: the public roots of that rule, DER; None for those of `certifi`.
        on_violation: called with the error before it is raised.
        reporter: what becomes of the violation report where the host has a report-uri, before the error is raised.
            ``"all"`` keeps it in the store and sends it from the background (:class:`~dynpin.clientstore.ReportQueue`);
            ``"same-domain"`` does so only where the report-uri is within the pinned host's own registrable domain;
            ``"off"`` or None sends nothing; a :class:`~dynpin.clientstore.Reporter` of your own takes it.

    Raises:
        UnenforceableContext: where no pin could be enforced: a server's context, an object that is no context, or one
            that leaves verification to the operating system.
    """
    public = None if public_roots is None else frozenset(public_roots)
    enforcement = Enforcement(store, private_roots, on_violation, reporter, context, public_roots=public)
    for target in _targets(context):
        if any(enforcement.same_as(earlier) for earlier in _enforcements(target.sslsocket_class)):
            continue
        # Subclasses of the classes that the context has, not of ssl's own: truststore, for one, has its own too.
        target.sslsocket_class = _subclass(_SocketGuard, target.sslsocket_class, enforcement)
        target.sslobject_class = _subclass(_ObjectGuard, target.sslobject_class, enforcement)
        # A renegotiation could change the certificate after the check.
        context.options |= ssl.OP_NO_RENEGOTIATION
    _probe(context)
    if isinstance(enforcement.reporter, ReportQueue):
        enforcement.reporter.resume()
    return context


def peer_of(connection: object) -> Peer | None:
    """What the handshake of an enforced TLS socket or object proved, for the adapter that notes its response.

    None where the object is no enforced connection, or its handshake has not passed.
    """
    if not isinstance(connection, _SocketGuard | _ObjectGuard) or connection.dynpin_proof is None:
        return None
    proof, reporter = connection.dynpin_proof, connection.dynpin_enforcements[-1].reporter
    return Peer(proof.host, proof.pins, proof.validated, _served(connection), reporter)


class _HandshakeGuard:
    """The state of the check on one connection; what the two guards below share."""

    # More than one where a context is enforced for several stores: each must agree.
    dynpin_enforcements: ClassVar[tuple[Enforcement, ...]] = ()
    dynpin_strict: bool = True
    dynpin_error: PinValidationError | None = None
    dynpin_proof: Proof | None = None

    def _dynpin_begin(self, context: ssl.SSLContext) -> None:
        """Before the handshake: raise again what has failed, and look whether the context is strict.

        SSL_new copies the verify mode, so what counts is what held when the connection was made, which `_create` and
        `connect` have looked at; a context that was loosened since refuses all the same. It is not looked at behind
        the handshake, which lasts as long as the other side likes.
        """
        _raise_again(self)
        if self.dynpin_strict:
            self.dynpin_strict = is_strict(context)

    def _dynpin_check(self, connection: ssl.SSLSocket | ssl.SSLObject) -> None:
        """Run Pin Validation once the handshake is done; raise, now and at every later use, where it fails."""
        tls = inner(connection)
        if self.dynpin_proof is not None or tls is None:
            return
        strict = self.dynpin_strict
        name, chain, reused = tls.server_hostname, tls.get_verified_chain(), tls.session_reused
        proof: Proof | None = None
        for enforcement in self.dynpin_enforcements:
            proof = enforcement.recall(name, chain) if strict and chain and not reused else None
            if proof is None:
                try:
                    proof = enforcement.check(
                        name,
                        strict=strict,
                        resumed_session=session_id(connection) if reused else None,
                        chain=chain or [],
                        served=_served(connection),
                    )
                except PinValidationError as error:
                    self.dynpin_error = error
                    raise
        self.dynpin_proof = proof


class _SocketGuard(_HandshakeGuard, ssl.SSLSocket):
    """An SSLSocket that shows nothing and sends nothing before its handshake has passed Pin Validation."""

    @classmethod
    def _create(cls, *args: object, context: ssl.SSLContext, **options: object) -> ssl.SSLSocket:
        # CPython's maker of sockets, which may run the handshake too.
        make: Callable[..., ssl.SSLSocket] = getattr(super(), "_create")  # noqa: B009 - typeshed has it not
        strict = is_strict(context)
        made = cast("_SocketGuard", make(*args, context=context, **options))
        passed = made.dynpin_proof is not None
        if made.dynpin_strict and not (strict and (passed or is_strict(context))):
            made.dynpin_strict, made.dynpin_proof = False, None
            if passed:  # made by a loose context, which was strict again when the handshake began
                made.do_handshake()
        return made

    def connect(self, addr: Any) -> None:  # noqa: ANN401 - an address of any family
        self.dynpin_strict = is_strict(self.context)
        super().connect(addr)

    def connect_ex(self, addr: Any) -> int:  # noqa: ANN401 - an address of any family
        self.dynpin_strict = is_strict(self.context)
        return super().connect_ex(addr)

    def do_handshake(self, block: bool = False) -> None:
        self._dynpin_begin(self.context)
        super().do_handshake(block)
        try:
            self._dynpin_check(self)
        except BaseException:
            self.close()
            raise

    def dynpin_ready(self) -> None:
        """Have the checking handshake pass before any I/O: OpenSSL would run one inside a write, unchecked."""
        _raise_again(self)
        if inner(self) is None:
            # Not connected, or shut down before its handshake: ssl would pass the bytes on as they are.
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        self.do_handshake()


class _ObjectGuard(_HandshakeGuard, ssl.SSLObject):
    """An SSLObject (asyncio, anyio, trio, TLS in TLS) that is guarded in the same way."""

    @classmethod
    def _create(
        cls, incoming: object, outgoing: object, *, context: ssl.SSLContext, **options: object
    ) -> ssl.SSLObject:
        make: Callable[..., ssl.SSLObject] = getattr(super(), "_create")  # noqa: B009 - typeshed has it not
        strict = is_strict(context)
        made = cast("_ObjectGuard", make(incoming, outgoing, context=context, **options))
        made.dynpin_strict = strict and is_strict(context)
        return made

    def do_handshake(self) -> None:
        self._dynpin_begin(self.context)
        super().do_handshake()
        self._dynpin_check(self)

    def dynpin_ready(self) -> None:
        """As on the socket."""
        _raise_again(self)
        self.do_handshake()


# Every method of ssl.SSLSocket and ssl.SSLObject that moves bytes.
SOCKET_IO = (
    *("read", "write", "send", "sendall", "sendto", "sendmsg", "sendfile", "unwrap"),
    *("recv", "recv_into", "recvfrom", "recvfrom_into", "recvmsg", "recvmsg_into"),
)
OBJECT_IO = ("read", "write", "unwrap")


def _guarded(guard: type, name: str) -> Callable[..., object]:
    """The method of the same name of the class behind the guard, run once the handshake has passed."""

    def method(self: _SocketGuard | _ObjectGuard, *args: object, **kwargs: object) -> object:
        if self.dynpin_proof is None:
            self.dynpin_ready()
        inherited: Callable[..., object] = getattr(super(guard, self), name)  # pyright: ignore[reportUnknownArgumentType]
        return inherited(*args, **kwargs)

    method.__name__ = name
    method.__qualname__ = f"{guard.__qualname__}.{name}"
    return method


def _session_property(base: type) -> property:
    """`session`, which whoever resumes a session must have read: what its handshake proved is remembered then."""
    inherited: property = vars(base)["session"]

    def read(self: _SocketGuard | _ObjectGuard) -> ssl.SSLSession | None:
        session: ssl.SSLSession | None = inherited.__get__(self)
        if session is not None and self.dynpin_proof is not None:
            for enforcement in self.dynpin_enforcements:
                enforcement.remember(session.id, self.dynpin_proof)
        return session

    def write(self: _SocketGuard | _ObjectGuard, session: ssl.SSLSession) -> None:
        inherited.__set__(self, session)

    return property(read, write, doc=inherited.__doc__)


for _name in SOCKET_IO:
    setattr(_SocketGuard, _name, _guarded(_SocketGuard, _name))
for _name in OBJECT_IO:
    setattr(_ObjectGuard, _name, _guarded(_ObjectGuard, _name))
setattr(_SocketGuard, "session", _session_property(ssl.SSLSocket))  # noqa: B010 - mypy has it as an attribute
setattr(_ObjectGuard, "session", _session_property(ssl.SSLObject))  # noqa: B010 - mypy has it as an attribute


def _served(connection: ssl.SSLSocket | ssl.SSLObject) -> Callable[[], tuple[bytes, ...]]:
    # The connection keeps its Peer: a strong reference back would leave each one to the garbage collector, which costs
    # more than Pin Validation does.
    reference = weakref.ref(connection)

    def served() -> tuple[bytes, ...]:
        alive = reference()
        return () if alive is None else unverified_chain(alive)

    return served


def _raise_again(connection: _HandshakeGuard) -> None:
    if connection.dynpin_error is not None:
        raise connection.dynpin_error


def _subclass(guard: type[_HandshakeGuard], base: type[object], enforcement: Enforcement) -> type:
    bases: tuple[type[object], ...] = (guard, base)
    if issubclass(base, guard) or issubclass(guard, base):
        bases = (base,) if issubclass(base, guard) else (guard,)
    return type(
        f"Enforced{base.__name__.removeprefix('Enforced')}",
        bases,
        {"dynpin_enforcements": (*_enforcements(base), enforcement)},
    )


def _enforcements(base: type[object]) -> tuple[Enforcement, ...]:
    return base.dynpin_enforcements if issubclass(base, _HandshakeGuard) else ()


def _targets(context: ssl.SSLContext) -> list[ssl.SSLContext]:
    """The contexts whose classes count: the context itself, and the one it hands its work to."""
    if not hasattr(context, "sslobject_class") or not hasattr(context, "wrap_bio"):
        raise UnenforceableContext(
            f"{type(context).__name__} is no ssl.SSLContext, so pins cannot be enforced on it; "
            "give ssl.create_default_context() or your library's own SSLContext"
        )
    if context.protocol is ssl.PROTOCOL_TLS_SERVER:
        raise UnenforceableContext("a server's context meets no Pinned Host; enforce pins on the client's context")
    # truststore.SSLContext makes its sockets by a context inside, which it does not show; _probe tells whether the
    # classes set there are the ones in use.
    delegate: object = getattr(context, "_ctx", None)
    if not is_context(delegate):
        return [context]
    if sys.platform in ("darwin", "win32"):
        raise UnenforceableContext(
            f"{type(context).__module__}.{type(context).__name__} lets the operating system verify, and that shows no "
            "chain to hold pins against; use ssl.create_default_context(), with certifi's roots if need be"
        )
    return [cast("ssl.SSLContext", delegate)]


def _probe(context: ssl.SSLContext) -> None:
    """Never let a context pass that only looks enforced: make a connection of each kind and look at its class."""
    name = "probe.invalid"
    tls_object = context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=name)
    near, far = socket.socketpair()
    with near, far, context.wrap_socket(near, do_handshake_on_connect=False, server_hostname=name) as tls_socket:
        if not isinstance(tls_object, _ObjectGuard) or not isinstance(tls_socket, _SocketGuard):
            raise UnenforceableContext(
                f"{type(context).__module__}.{type(context).__name__} makes its connections by other means than its "
                "sslsocket_class and sslobject_class, so pins cannot be enforced; use ssl.create_default_context()"
            )
