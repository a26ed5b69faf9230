"""Which contexts can be enforced, and when a chain is not proof."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from dynpin import Pin, PinValidationError, UnenforceableContext
from dynpin.clientstore import PinStore, enforce, peer_of
from dynpin.clientstore.enforcement import Enforcement, guard

from .handshakes import REQUEST, assert_refused_unheard, open_tls, pump, shows
from .world import HOST, World, forged_leaf, leaf_pin, tls_world


@pytest.fixture
def world(honest: trustme.CA, rogue: trustme.CA, tmp_path: Path) -> Iterator[World]:
    with tls_world(honest, rogue, tmp_path, "other.test") as made:
        yield made


# -- a chain is not proof ---------------------------------------------------------------------------------------------


def test_a_forged_leaf_cannot_borrow_the_authority_it_names(world: World) -> None:
    # Under CERT_NONE OpenSSL builds a "verified" chain from a forged leaf to the real authority.
    world.store.pin(HOST, [Pin.from_certificate(world.honest.cert_pem.bytes())])
    world.attacker.use(shows(world, forged_leaf(world.honest)))
    context = world.context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    error = assert_refused_unheard(world, lambda: open_tls(world, world.attacker, context))
    assert "switched off" in str(error)


def _no_hostname_check(context: ssl.SSLContext) -> None:
    context.check_hostname = False


def _no_verification(context: ssl.SSLContext) -> None:
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE


def _optional(context: ssl.SSLContext) -> None:
    context.verify_mode = ssl.CERT_OPTIONAL


def _tighten(context: ssl.SSLContext) -> None:
    context.verify_mode = ssl.CERT_REQUIRED
    context.check_hostname = True


@pytest.mark.parametrize("loosen", [_no_hostname_check, _no_verification, _optional])
def test_a_context_loosened_after_enforce_fails_closed_for_pinned_hosts(
    world: World, loosen: Callable[[ssl.SSLContext], None]
) -> None:
    context = world.context()
    open_tls(world, world.site, context).close()  # that this chain has passed is remembered
    loosen(context)
    with open_tls(world, world.site, context) as tls:
        peer = peer_of(tls)
        assert peer is not None
        assert peer.pins == ()  # so nothing can be noted from it
    world.pin_site()
    with pytest.raises(PinValidationError, match="verification is switched off"):
        open_tls(world, world.site, context)


@pytest.mark.parametrize("connect_later", [None, "connect", "connect_ex"])
def test_a_context_tightened_between_wrap_and_handshake_proves_nothing(world: World, connect_later: str | None) -> None:
    # OpenSSL copies the verify mode when the connection is made, so what the context says afterwards is not proof.
    world.pin_site()
    context = world.context()
    if connect_later is not None:
        tls = context.wrap_socket(socket.socket(), server_hostname=HOST, do_handshake_on_connect=False)
        _no_verification(context)
        assert not getattr(tls, connect_later)(("127.0.0.1", world.site.port))
    else:
        _no_verification(context)
        tls = context.wrap_socket(world.connect(world.site), server_hostname=HOST, do_handshake_on_connect=False)
    _tighten(context)
    with pytest.raises(PinValidationError, match="switched off"):
        tls.do_handshake()


@pytest.mark.parametrize("loosen", [_no_hostname_check, _no_verification, _optional])
@pytest.mark.parametrize("kind", ["socket", "object"])
def test_a_context_loosened_between_wrap_and_handshake_refuses(
    world: World, kind: str, loosen: Callable[[ssl.SSLContext], None]
) -> None:
    world.pin_site()
    context = world.context()
    if kind == "socket":
        connection = world.connect(world.site)
        tls = context.wrap_socket(connection, server_hostname=HOST, do_handshake_on_connect=False)
        loosen(context)
        with pytest.raises(PinValidationError, match="switched off"):
            tls.do_handshake()
    else:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls_object = context.wrap_bio(incoming, outgoing, server_hostname=HOST)
        loosen(context)
        with world.connect(world.site) as connection, pytest.raises(PinValidationError, match="switched off"):
            pump(tls_object.do_handshake, incoming, outgoing, connection)


class _TightensWhenMade(ssl.SSLContext):
    """A context that is loose while a connection is made, and strict again before the handshake begins."""

    armed = False

    def _wrap_socket(self, *args: object, **kwargs: object) -> object:
        made = getattr(super(), "_wrap_socket")(*args, **kwargs)  # noqa: B009 - typeshed has it not
        if self.armed:
            _tighten(self)
        return made


def test_a_context_that_was_loose_when_the_connection_was_made_refuses_a_chain_nobody_verified(world: World) -> None:
    world.store.pin(HOST, [Pin.from_certificate(world.honest.cert_pem.bytes())])
    world.attacker.use(shows(world, forged_leaf(world.honest)))
    context = _TightensWhenMade(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=world.honest.cert_pem.bytes().decode())
    enforce(context, world.store)
    _no_verification(context)
    context.armed = True
    assert "switched off" in str(assert_refused_unheard(world, lambda: open_tls(world, world.attacker, context)))


def test_a_context_tightened_while_the_server_stalls_its_handshake_refuses_a_chain_nobody_verified(
    world: World,
) -> None:
    world.store.pin(HOST, [Pin.from_certificate(world.honest.cert_pem.bytes())])
    forged = shows(world, forged_leaf(world.honest))
    context = world.context()
    heard = b""

    def serve(listener: socket.socket) -> None:
        nonlocal heard
        connection, _ = listener.accept()
        connection.recv(1, socket.MSG_PEEK)  # the ClientHello is here, and the client waits
        _tighten(context)
        with contextlib.suppress(OSError), forged.wrap_socket(connection, server_side=True) as tls:
            heard = tls.recv(4096)

    _no_verification(context)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        with (
            socket.create_connection(listener.getsockname(), timeout=60) as connection,
            pytest.raises(PinValidationError, match="switched off"),
            context.wrap_socket(connection, server_hostname=HOST) as tls,
        ):
            tls.sendall(REQUEST)
        thread.join()
    assert heard == b""


# -- contexts ---------------------------------------------------------------------------------------------------------


def test_truststore_is_enforced_if_openssl_verifies(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    truststore = pytest.importorskip("truststore")
    monkeypatch.setenv("SSL_CERT_FILE", str(world.roots_file()))
    context = enforce(truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT), world.store)
    world.pin_site()
    with open_tls(world, world.site, context) as tls:
        assert peer_of(tls) is not None
    assert_refused_unheard(world, lambda: open_tls(world, world.attacker, context))


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_truststore_is_refused_if_the_system_verifies(
    world: World, monkeypatch: pytest.MonkeyPatch, platform: str
) -> None:
    truststore = pytest.importorskip("truststore")
    context = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    monkeypatch.setattr("sys.platform", platform)
    with pytest.raises(UnenforceableContext, match="operating system"):
        enforce(context, world.store)


class _HandsOn:
    """Has all attributes of a context, but is not one."""

    def __init__(self, inside: ssl.SSLContext) -> None:
        object.__setattr__(self, "inside", inside)

    def __getattr__(self, name: str) -> object:
        return getattr(object.__getattribute__(self, "inside"), name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(object.__getattribute__(self, "inside"), name, value)

    def _encode_hostname(self, name: str) -> str:
        return name


def test_a_context_behind_another_object_is_refused_and_left_as_strict_as_it_was(world: World) -> None:
    inside = world.plain_context()
    with pytest.raises(UnenforceableContext, match="is not an ssl"):
        enforce(_HandsOn(inside), world.store)  # type: ignore[type-var] # pyright: ignore[reportArgumentType]
    assert (inside.verify_mode, inside.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert inside.sslsocket_class is ssl.SSLSocket


def _with(**attributes: object) -> ssl.SSLContext:
    """A client's context of a class with these attributes."""
    made: ssl.SSLContext = type("Other", (ssl.SSLContext,), attributes)(ssl.PROTOCOL_TLS_CLIENT)
    return made


def _elsewhere(name: str) -> ssl.SSLContext:
    """A context that makes a kind of its connections with another, hidden one."""
    return _with(**{name: staticmethod(getattr(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), name))})


class _RenamingSocket(ssl.SSLContext):
    """A context that asks for a name of its own: the pins of the caller's name would not be looked up."""

    def wrap_socket(self, sock: socket.socket, **options: Any) -> ssl.SSLSocket:  # type: ignore[override] # as called
        return super().wrap_socket(sock, **{**options, "server_hostname": "other.test"})


class _RenamingObject(ssl.SSLContext):
    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        return super().wrap_bio(*args, **{**options, "server_hostname": "other.test"})


@pytest.mark.parametrize(
    ("made", "cause"),
    [
        (lambda: _elsewhere("wrap_socket"), "not make its connections"),
        (lambda: _elsewhere("wrap_bio"), "not make its connections"),
        (lambda: _with(wrap_bio=None), "it cannot make a connection"),
        (lambda: _with(sslsocket_class=bool), "its sockets cannot be subclassed"),
        (lambda: _RenamingSocket(ssl.PROTOCOL_TLS_CLIENT), "verifies another name"),
        (lambda: _RenamingObject(ssl.PROTOCOL_TLS_CLIENT), "verifies another name"),
        (lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), "server's context"),
        (lambda: "not a context", "not an ssl.SSLContext"),
        (lambda: True, "not an ssl.SSLContext"),
        (lambda: ssl.SSLContext.__mro__[1](ssl.PROTOCOL_TLS_CLIENT), "not an ssl.SSLContext"),
    ],
    ids=[
        *("sockets", "objects", "no objects", "final class", "renaming sockets", "renaming objects"),
        *("server", "text", "bool", "without ssl's part"),
    ],
)
def test_a_context_that_cannot_be_enforced_is_refused(
    world: World, made: Callable[[], ssl.SSLContext], cause: str
) -> None:
    with pytest.raises(UnenforceableContext, match=cause):
        enforce(made(), world.store)


class _UnseenObject(ssl.SSLObject):
    """It hands out objects whose handshake goes past the guard."""

    @classmethod
    def _create(cls, *args: object, **options: object) -> ssl.SSLObject:
        made = super()._create(*args, **options)  # type: ignore[misc]
        made.do_handshake = made._sslobj.do_handshake
        return made  # type: ignore[no-any-return]


class _UnseenSocket(ssl.SSLSocket):
    """The same for sockets."""

    @classmethod
    def _create(cls, *args: object, **options: object) -> ssl.SSLSocket:
        made = super()._create(*args, **options)  # type: ignore[misc]
        made.do_handshake = made._sslobj.do_handshake
        return made  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "replaced", [{"sslobject_class": _UnseenObject}, {"sslsocket_class": _UnseenSocket}], ids=["object", "socket"]
)
def test_each_pair_of_classes_is_seen_to_check_by_a_handshake_of_its_own(
    world: World, replaced: dict[str, type]
) -> None:
    enforce(world.plain_context(), world.store)  # that ssl's own have been seen says nothing of others
    context = world.plain_context()
    for name, made in replaced.items():
        setattr(context, name, made)
    with pytest.raises(UnenforceableContext, match="its handshakes cannot be checked"):
        enforce(context, world.store)


def test_enforcing_twice_is_enforcing_once_and_two_stores_both_count(world: World) -> None:
    context = world.context()
    once = context.sslsocket_class
    assert enforce(context, world.store).sslsocket_class is once
    with PinStore(world.folder / "second") as second:
        enforce(context, second)
        second.pin(HOST, [leaf_pin(world.backup)])
        with pytest.raises(PinValidationError):
            open_tls(world, world.site, context)
        second.forget(HOST)
        world.store.pin(HOST, [leaf_pin(world.backup)])
        with pytest.raises(PinValidationError):
            open_tls(world, world.site, context)


def test_a_rule_is_itself_and_no_other_rule(world: World) -> None:
    context = world.plain_context()
    rules = [Enforcement(world.store), Enforcement(world.store)]
    for rule in [*rules, *rules]:
        guard(context, rule)
    assert context.sslobject_class.dynpin_enforcements == tuple(rules)  # type: ignore[attr-defined] # pyright: ignore


def test_renegotiation_is_off(world: World) -> None:
    assert world.context().options & ssl.OP_NO_RENEGOTIATION


def test_private_roots_may_be_bypassed_as_browsers_do(world: World) -> None:
    world.pin_site()
    context = enforce(world.plain_context(), world.store, private_roots="bypass")
    with open_tls(world, world.attacker, context) as tls:
        assert peer_of(tls) is not None
    assert_refused_unheard(world, lambda: open_tls(world, world.attacker, world.context()))


def test_the_public_roots_of_the_bypass_may_be_given(world: World) -> None:
    world.pin_site()
    of_the_attacker, of_another = (
        ssl.PEM_cert_to_DER_cert(authority.cert_pem.bytes().decode()) for authority in (world.rogue, world.honest)
    )
    context = enforce(world.plain_context(), world.store, private_roots="bypass", public_roots=[of_the_attacker])
    assert_refused_unheard(world, lambda: open_tls(world, world.attacker, context))
    context = enforce(world.plain_context(), world.store, private_roots="bypass", public_roots=[of_another])
    with open_tls(world, world.attacker, context) as tls:
        assert peer_of(tls) is not None
