"""The sockets that check: subclasses of ssl's, which compare the chain with the pins before the first byte.

An ``ssl.SSLContext`` names the classes of its sockets. The two classes here replace them. So every library that takes
a context is covered by the same code.
"""

from __future__ import annotations

import errno
import os
import ssl
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, cast

from dynpin.errors import PinValidationError

from .certified import certified_names
from .chains import CHAIN, NAME, inner, strictness, unverified_chain
from .decision import Enforcement, Handshake, Peer, Proof

__all__ = ["ObjectGuard", "SocketGuard", "listen_for_names", "peer_of"]

_REMEMBERED_SESSIONS = 1024
# For each thread: the name that the last caller of wrap_bio gave, and TLS's form of it.
_asked = threading.local()


def listen_for_names(context: ssl.SSLContext) -> None:
    """Let the guards know the name that a caller gives, before ssl rewrites it.

    Behind ``wrap_bio`` only the rewritten name is visible: asyncio's faß.test would be taken for fass.test.
    """
    # No reference cycle through the context: it would then live until the garbage collector runs.
    reference = weakref.ref(context)
    encode: Callable[[ssl.SSLContext | None, str | None], str | None] = getattr(type(context), "_encode_hostname")  # noqa: B009 - typeshed does not have it

    def encode_hostname(name: str | None) -> str | None:
        written = encode(reference(), name)
        # anyio passes the rewritten name as bytes.
        _asked.names = (name if isinstance(name, str) else written, written)
        return written

    setattr(context, "_encode_hostname", encode_hostname)  # noqa: B010 - typeshed does not have it


def _name_asked(written: str | None) -> str | None:
    """The caller's name, from TLS's form of it."""
    names: tuple[str | None, str | None] = getattr(_asked, "names", (None, None))
    _asked.names = (None, None)  # valid for one connection
    return names[0] if names[1] == written else written


def peer_of(connection: object) -> Peer | None:
    """What the handshake of an enforced TLS socket or object proved, for the adapter that notes its response.

    None if the object is not an enforced connection, or if its handshake has not passed.
    """
    if not isinstance(connection, SocketGuard | ObjectGuard) or connection.dynpin_proof is None:
        return None
    proof, reporter = connection.dynpin_proof, connection.dynpin_enforcements[-1].reporter
    return Peer(proof.host, proof.pins, proof.validated, _served(connection), reporter)


class _Guard:
    """The state of the check on one connection; what the two guards below share."""

    # More than one if a context is enforced for several stores: each must accept the chain.
    dynpin_enforcements: ClassVar[tuple[Enforcement, ...]] = ()
    # Whether this is the probe's class, which checks nothing. `dynpin run` hardens all others.
    dynpin_exempt: ClassVar[bool] = False
    # An event loop uses an SSLObject: its thread must not wait for the disk.
    dynpin_may_wait: ClassVar[bool] = True
    dynpin_server_side = False
    dynpin_strict = NAME
    dynpin_asked: str | None = None
    dynpin_offered: ssl.SSLSession | None = None
    dynpin_error: PinValidationError | None = None
    dynpin_proof: Proof | None = None

    def dynpin_begin(self, context: ssl.SSLContext) -> None:
        """Run before the handshake: raise an earlier failure again, and check that the context is strict.

        SSL_new copies the verify mode, so the mode at the time of `_create` and `connect` counts; both record it. If
        the context was loosened since, the connection is refused too. The mode is not read after the handshake: the
        other side decides how long a handshake takes.
        """
        if self.dynpin_error is not None:
            raise self.dynpin_error
        self.dynpin_strict = min(self.dynpin_strict, strictness(context))

    def dynpin_check(self, connection: ssl.SSLSocket | ssl.SSLObject) -> None:
        """Run Pin Validation after the handshake. If it fails, raise now and at every later use."""
        if self.dynpin_proof is not None:
            return
        tls = inner(connection)
        if tls is None:  # another thread has shut TLS down: ssl would send the bytes in the clear
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        proof: Proof | None = None
        handshake = Handshake(
            asked=self.dynpin_asked,
            name=tls.server_hostname,
            strict=self.dynpin_strict == NAME,
            names=certified_names(tls.getpeercert() or {}) if self.dynpin_strict == CHAIN else (),
            chain=tls.get_verified_chain() or [],
            resumed=tls.session_reused,
            earlier=None if self.dynpin_offered is None else _proof_of(self.dynpin_offered),
            served=partial(unverified_chain, connection),
            may_wait=self.dynpin_may_wait,
        )
        for enforcement in self.dynpin_enforcements:
            try:
                proof = enforcement.check(handshake)
            except PinValidationError as error:
                self.dynpin_error = error
                raise
        self.dynpin_proof = proof

    def dynpin_explain(self, error: ssl.SSLError) -> None:
        """Explain the failure if a server asked for a new handshake in the middle of a connection."""
        if error.reason in ("NO_RENEGOTIATION", "SSLV3_ALERT_HANDSHAKE_FAILURE") and self.dynpin_proof is not None:
            error.add_note(
                f"dynpin does not allow TLS renegotiation, and {self.dynpin_proof.host} may have asked for it, perhaps "
                "for a client certificate. To allow it:  enforce(context, store, allow_renegotiation=True)"
            )


class SocketGuard(_Guard, ssl.SSLSocket):
    """An SSLSocket that reads and sends nothing until its handshake has passed Pin Validation."""

    @classmethod
    def _create(
        cls,
        *args: Any,  # noqa: ANN401 - CPython's own
        context: ssl.SSLContext,
        do_handshake_on_connect: bool = True,
        server_hostname: str | None = None,
        session: ssl.SSLSession | None = None,
        **options: Any,  # noqa: ANN401 - CPython's own
    ) -> ssl.SSLSocket:
        make: Callable[..., ssl.SSLSocket] = getattr(super(), "_create")  # noqa: B009 - typeshed does not have it
        strict = strictness(context)
        # The handshake runs below, once the guard is set up; or in `connect`, which reads the attribute.
        made = cast(
            "SocketGuard",
            make(
                *args,
                context=context,
                do_handshake_on_connect=False,
                server_hostname=server_hostname,
                session=session,
                **options,
            ),
        )
        made.dynpin_server_side = made.server_side
        made.dynpin_strict = min(strict, strictness(context))
        is_written = isinstance(server_hostname, bytes)  # ssl accepts bytes too
        made.dynpin_asked = made.server_hostname if is_written else server_hostname
        made.dynpin_offered = session
        setattr(made, "do_handshake_on_connect", do_handshake_on_connect)  # noqa: B010 - typeshed does not have it
        if do_handshake_on_connect and inner(made) is not None:
            made.dynpin_handshake_on_connect()
        return made

    def dynpin_handshake_on_connect(self) -> None:
        """Do what CPython does with a connected socket."""
        if self.gettimeout() == 0.0:
            self.close()
            raise ValueError("do_handshake_on_connect should not be specified for non-blocking sockets")
        try:
            self.do_handshake()
        except BaseException:
            self.close()
            raise

    def connect(self, addr: Any) -> None:  # noqa: ANN401 - an address of any family
        """Like ssl's."""
        self.dynpin_strict = strictness(self.context)
        super().connect(addr)

    def connect_ex(self, addr: Any) -> int:  # noqa: ANN401 - an address of any family
        """Like ssl's."""
        self.dynpin_strict = strictness(self.context)
        return super().connect_ex(addr)

    def do_handshake(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - CPython's own
        """Like ssl's, and Pin Validation."""
        if self.dynpin_server_side:
            super().do_handshake(*args, **options)
            return
        self.dynpin_begin(self.context)
        super().do_handshake(*args, **options)
        try:
            self.dynpin_check(self)
        except BaseException:
            self.close()
            raise

    def dynpin_ready(self) -> None:
        """Make sure that the checked handshake has passed before any I/O: OpenSSL would start one inside a write."""
        if self.dynpin_server_side:
            return
        if self.dynpin_error is not None:
            raise self.dynpin_error
        if inner(self) is None:
            # Not connected, or shut down before its handshake: ssl would send the bytes in the clear.
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        self.do_handshake()


class ObjectGuard(_Guard, ssl.SSLObject):
    """An SSLObject (asyncio, anyio, trio, TLS in TLS) with the same guard."""

    dynpin_may_wait = False

    @classmethod
    def _create(
        cls,
        *args: Any,  # noqa: ANN401 - CPython's own
        context: ssl.SSLContext,
        server_hostname: str | None = None,
        session: ssl.SSLSession | None = None,
        **options: Any,  # noqa: ANN401 - CPython's own
    ) -> ssl.SSLObject:
        make: Callable[..., ssl.SSLObject] = getattr(super(), "_create")  # noqa: B009 - typeshed does not have it
        strict = strictness(context)
        made = cast(
            "ObjectGuard",
            make(*args, context=context, server_hostname=server_hostname, session=session, **options),
        )
        made.dynpin_server_side = made.server_side
        made.dynpin_strict = min(strict, strictness(context))
        made.dynpin_asked, made.dynpin_offered = _name_asked(server_hostname), session
        return made

    def do_handshake(self) -> None:
        """Like ssl's, and Pin Validation."""
        if self.dynpin_server_side:
            super().do_handshake()
            return
        self.dynpin_begin(self.context)
        super().do_handshake()
        self.dynpin_check(self)

    def dynpin_ready(self) -> None:
        """See the socket's method."""
        if not self.dynpin_server_side:
            self.do_handshake()


# All methods of ssl.SSLSocket and ssl.SSLObject that move bytes.
SOCKET_IO = (
    *("read", "write", "send", "sendall", "sendto", "sendmsg", "sendfile", "unwrap"),
    *("recv", "recv_into", "recvfrom", "recvfrom_into", "recvmsg", "recvmsg_into"),
)
OBJECT_IO = ("read", "write", "unwrap")


def _guarded(guard: type, name: str) -> Callable[..., object]:
    """A method of the guarded class that runs only after the handshake has passed."""

    def method(self: SocketGuard | ObjectGuard, *args: object, **kwargs: object) -> object:
        if self.dynpin_proof is None:
            self.dynpin_ready()
        inherited: Callable[..., object] = getattr(super(guard, self), name)  # pyright: ignore[reportUnknownArgumentType]
        try:
            return inherited(*args, **kwargs)
        except ssl.SSLError as error:
            self.dynpin_explain(error)
            raise

    method.__name__ = name
    method.__qualname__ = f"{guard.__qualname__}.{name}"
    return method


# What a handshake proved, by the SSLSession object that was read from its connection. The key is never the session's
# id: the server chooses the id, and may use it again in a resumption after the offered session was accepted.
_proofs: OrderedDict[int, tuple[ssl.SSLSession, Proof]] = OrderedDict()


def _proof_of(session: ssl.SSLSession) -> Proof | None:
    found = _proofs.get(id(session))
    return found[1] if found is not None and found[0] is session else None


def _session_property(base: type) -> property:
    """The attribute `session`. To read it is the only way to resume a session later, so the proof is stored then."""
    inherited: property = getattr(base, "session")  # noqa: B009 - eventlet's class inherits it

    def read(self: SocketGuard | ObjectGuard) -> ssl.SSLSession | None:
        session: ssl.SSLSession | None = inherited.__get__(self)
        proof = self.dynpin_proof
        if session is not None and proof is not None and proof.chain:
            # Keep the session alive, so that no other object gets the same id().
            _proofs[id(session)] = session, proof
            if len(_proofs) > _REMEMBERED_SESSIONS:
                _proofs.popitem(last=False)
        return session

    def write(self: SocketGuard | ObjectGuard, session: ssl.SSLSession) -> None:
        # No proof counts until ssl has accepted the session: if it refuses this one, the server may resume the one
        # that was offered before, and that must not use this proof.
        self.dynpin_offered = None
        inherited.__set__(self, session)
        self.dynpin_offered = session

    return property(read, write, doc=inherited.__doc__)


for _name in SOCKET_IO:
    setattr(SocketGuard, _name, _guarded(SocketGuard, _name))
for _name in OBJECT_IO:
    setattr(ObjectGuard, _name, _guarded(ObjectGuard, _name))
setattr(SocketGuard, "session", _session_property(ssl.SSLSocket))  # noqa: B010 - mypy has it as an attribute
setattr(ObjectGuard, "session", _session_property(ssl.SSLObject))  # noqa: B010 - mypy has it as an attribute


def _served(connection: ssl.SSLSocket | ssl.SSLObject) -> Callable[[], tuple[bytes, ...]]:
    # Adapters keep a Peer with the connection. A strong reference here would be a cycle for the garbage collector.
    reference = weakref.ref(connection)

    def served() -> tuple[bytes, ...]:
        alive = reference()
        return () if alive is None else unverified_chain(alive)

    return served
