"""Put the guards into a context, and make sure that its connections really use them."""

from __future__ import annotations

import socket
import ssl
import sys
from typing import cast

from dynpin.errors import UnenforceableContext

from .chains import add_option, is_context
from .decision import Enforcement, Handshake, Proof
from .guards import ObjectGuard, SocketGuard, listen_for_names

__all__ = ["guard", "is_enforced"]

_PROBE = "probe.invalid"
# Ciphers that need no certificate (TLS 1.2, anonymous). Only the probe uses them.
_ANONYMOUS = "AECDH:@SECLEVEL=0"
# Libraries that replace the classes of ssl and socket, and how to start them without that. gevent's sockets do not work
# under ssl's own classes, with pins or without, so ssl must be imported before gevent replaces anything.
_GREEN = {
    "gevent": "import ssl, and then call gevent.monkey.patch_all(ssl=False)",
    "eventlet": "call eventlet.monkey_patch(socket=False)",
}
# The pairs of classes for which a probe has seen that the handshake is checked.
_probed: set[tuple[str, str]] = set()


def guard(context: ssl.SSLContext, enforcement: Enforcement) -> None:
    """Have every client connection of the context checked by `enforcement`.

    Raises:
        UnenforceableContext: if that cannot be done, or if a probe cannot confirm that it works.
    """
    target = _delegate(context)
    # OpenSSL does not use the classes of any other object, even if that object has the same attributes.
    if not is_context(target) or not hasattr(context, "wrap_bio"):
        raise UnenforceableContext(
            f"{type(context).__name__} is not an ssl.SSLContext, so pins cannot be enforced on it; "
            "give ssl.create_default_context() or your library's own SSLContext"
        )
    if target.protocol is ssl.PROTOCOL_TLS_SERVER:
        raise UnenforceableContext("this is a server's context; enforce pins on the client's context")
    try:
        # Subclass the classes that the context has, not ssl's own: truststore, for example, has its own.
        target.sslsocket_class = _subclass(SocketGuard, target.sslsocket_class, enforcement)
        target.sslobject_class = _subclass(ObjectGuard, target.sslobject_class, enforcement)
        listen_for_names(target)
    except TypeError as error:
        raise _unenforceable(context, f"its sockets cannot be subclassed ({error})") from None
    if not enforcement.allow_renegotiation:
        # A renegotiation could change the certificate after the check.
        add_option(target, ssl.OP_NO_RENEGOTIATION)
    _probe(context, target)


def is_enforced(context: ssl.SSLContext) -> bool:
    """Whether :func:`guard` has put its classes into the context."""
    return issubclass(_delegate(context).sslsocket_class, SocketGuard)


def _delegate(context: ssl.SSLContext) -> ssl.SSLContext:
    """The context whose classes count: this one, or the one that it delegates to."""
    # truststore.SSLContext makes its sockets with a hidden inner context. _probe finds out whether the classes that are
    # set on that one are used.
    delegate: object = getattr(context, "_ctx", None)
    if not is_context(delegate):
        return context
    if sys.platform in ("darwin", "win32"):
        raise UnenforceableContext(
            f"{type(context).__module__}.{type(context).__name__} lets the operating system verify, which gives no "
            "chain to check pins against; use ssl.create_default_context(), with certifi's roots if you need them"
        )
    return cast("ssl.SSLContext", delegate)


def _subclass(checking: type[SocketGuard | ObjectGuard], base: type[object], enforcement: Enforcement) -> type:
    earlier = _enforcements(base)
    if any(enforcement.same_as(other) for other in earlier):
        return base
    bases: tuple[type[object], ...] = (checking, base)
    if issubclass(base, checking):  # already guarded for another store
        bases = (base,)
    return type(
        f"Enforced{base.__name__.removeprefix('Enforced')}",
        bases,
        {"dynpin_enforcements": (*earlier, enforcement)},
    )


def _enforcements(base: type) -> tuple[Enforcement, ...]:
    return getattr(base, "dynpin_enforcements", ())


def _probe(context: ssl.SSLContext, target: ssl.SSLContext) -> None:
    """Make a connection of each kind and do one handshake, so that no context passes which only looks enforced."""
    near, far = socket.socketpair()
    with near, far:
        try:
            made = context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=_PROBE)
            wrapped = context.wrap_socket(near, do_handshake_on_connect=False, server_hostname=_PROBE)
        except (TypeError, AttributeError, KeyError) as error:
            raise _unenforceable(context, f"it cannot make a connection ({error})") from None
        with wrapped:
            if (
                not isinstance(made, ObjectGuard)
                or not isinstance(wrapped, SocketGuard)
                or wrapped.dynpin_asked is None
            ):
                raise _unenforceable(context, "it does not make its connections from its own classes")
            if not made.dynpin_asked == wrapped.dynpin_asked == _PROBE:
                raise _unenforceable(context, "it verifies another name than the one that it is asked for")
    guards = _bare(target.sslsocket_class), _bare(target.sslobject_class)
    if guards in _probed:
        return
    try:
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # never the caller's: the probe loosens the rules
        client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
        inside = _delegate(client)  # after truststore.inject_into_ssl() it is truststore's
        # Not with the caller's own decision, which opens the store: a server must be able to enforce before it forks.
        seen = {"dynpin_enforcements": (_Seen(),), "dynpin_exempt": True}
        inside.sslsocket_class = type("Probe", (target.sslsocket_class,), seen)
        inside.sslobject_class = type("Probe", (target.sslobject_class,), seen)
        if not (_shakes_hands_as_object(client) and _shakes_hands_as_socket(client)):
            raise _unenforceable(context, "its handshakes cannot be checked")
    except (TypeError, AttributeError, KeyError) as error:
        raise _unenforceable(context, f"its handshake fails ({error})") from None
    _probed.add(guards)


class _Seen:
    """A decision that accepts everything and records that it was asked. Only the probe uses it."""

    reporter = None

    def check(self, handshake: Handshake) -> Proof:
        return Proof(handshake.name or "")


def _bare(made: type) -> str:
    """The name of the class behind the guard: truststore makes another class for each context."""
    bare = next(base for base in made.__mro__ if not hasattr(base, "dynpin_enforcements"))
    return f"{bare.__module__}.{bare.__qualname__}"


def _server() -> tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers(_ANONYMOUS)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    return context.wrap_bio(incoming, outgoing, server_side=True), incoming, outgoing


def _shakes_hands_as_object(client: ssl.SSLContext) -> bool:
    client.set_ciphers(_ANONYMOUS)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    server, to_server, to_client = _server()
    made = client.wrap_bio(to_client, to_server, server_hostname=_PROBE)
    for _ in range(4):
        for end in (made, server):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return isinstance(made, ObjectGuard) and made.dynpin_proof is not None


def _shakes_hands_as_socket(client: ssl.SSLContext) -> bool:
    server, to_server, to_client = _server()
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        with client.wrap_socket(near, do_handshake_on_connect=False, server_hostname=_PROBE) as made:
            for _ in range(4):
                _step(made)
                _pass_on(far, to_server)
                _step(server)
                far.sendall(to_client.read())
            return isinstance(made, SocketGuard) and made.dynpin_proof is not None


def _step(end: ssl.SSLSocket | ssl.SSLObject) -> None:
    try:
        end.do_handshake()
    except ssl.SSLWantReadError:
        return


def _pass_on(far: socket.socket, to_server: ssl.MemoryBIO) -> None:
    far.setblocking(False)
    try:
        to_server.write(far.recv(65_536))
    except BlockingIOError:
        return
    finally:
        far.setblocking(True)


def _unenforceable(context: ssl.SSLContext, why: str) -> UnenforceableContext:
    kinds = (type(context), ssl.SSLContext, ssl.SSLSocket, socket.socket)
    for kind in kinds:
        name = kind.__module__.partition(".")[0]
        if name in _GREEN:
            return UnenforceableContext(
                f"pins cannot be enforced on the sockets that {name} puts in place of ssl's: {why}. What works: "
                f"{_GREEN[name]} (a TLS connection then blocks its whole thread); or make the pinned requests in a "
                "process of their own"
            )
    return UnenforceableContext(
        f"pins cannot be enforced on {type(context).__module__}.{type(context).__name__}: {why}; use "
        "ssl.create_default_context()"
    )
