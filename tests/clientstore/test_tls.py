"""enforce (RFC 7469 §2.6): every trap of DESIGN's "The one place that enforces", on real sockets."""

from __future__ import annotations

import contextlib
import copy
import errno
import gc
import os
import pickle
import shlex
import socket
import sqlite3
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from dynpin import Pin, PinValidationError, UnenforceableContext
from dynpin.clientstore import PinStore, enforce, peer_of
from dynpin.clientstore.enforcement import request_site
from dynpin.clientstore.enforcement.guards import OBJECT_IO, SOCKET_IO
from dynpin.lab.network import TLSServer
from dynpin.report import Report

from ..scenarios import Clock
from .test_reporting import by_hand
from .world import HOST, World, cross_signed, forged_leaf, leaf_pin, odd_leaf

REQUEST = b"GET / HTTP/1.1\r\nHost: bank.test\r\nAuthorization: Bearer secret\r\n\r\n"


@pytest.fixture(scope="module")
def authorities() -> tuple[trustme.CA, trustme.CA]:
    return trustme.CA(), trustme.CA()


@pytest.fixture
def world(authorities: tuple[trustme.CA, trustme.CA], tmp_path: Path) -> Iterator[World]:
    honest, rogue = authorities
    certificate, backup = honest.issue_cert(HOST, "other.test"), honest.issue_cert(HOST)
    stolen = rogue.issue_cert(HOST)
    with TLSServer(certificate) as site, TLSServer(stolen) as attacker, PinStore(tmp_path / "pins") as store:
        yield World(honest, rogue, certificate, backup, stolen, site, attacker, store, tmp_path)


def open_tls(world: World, server: TLSServer, context: ssl.SSLContext, host: str | None = HOST) -> ssl.SSLSocket:
    return context.wrap_socket(world.connect(server), server_hostname=host)


def assert_refused_unheard(world: World, attempt: Callable[[], object]) -> PinValidationError:
    with pytest.raises(PinValidationError) as caught:
        attempt()
    gc.collect()  # what the attempt left open is closed, so that the attacker's count is final
    world.attacker.wait_idle()
    assert world.attacker.connections > 0
    assert world.attacker.application_bytes == 0
    return caught.value


# -- the rule ---------------------------------------------------------------------------------------------------------


def test_an_unknown_host_connects_and_shows_its_validated_chain(world: World) -> None:
    with open_tls(world, world.site, world.context()) as tls:
        peer = peer_of(tls)
    assert peer is not None
    assert (peer.host, peer.pins[0]) == (HOST, leaf_pin(world.certificate))
    assert peer.pins[-1] == Pin.from_certificate(world.honest.cert_pem.bytes())


def test_the_pinned_key_connects(world: World) -> None:
    world.pin_site()
    with open_tls(world, world.site, world.context()) as tls:
        tls.sendall(REQUEST)
        assert tls.recv(4096).startswith(b"HTTP/1.1 200")


def test_another_key_under_a_trusted_ca_is_refused_before_a_byte(world: World) -> None:
    world.pin_site()
    error = assert_refused_unheard(world, lambda: open_tls(world, world.attacker, world.context()))
    message = str(error)
    for part in (HOST, *map(str, world.header.pins), str(leaf_pin(world.stolen_name)), "dynpin hosts forget bank.test"):
        assert part in message
    assert error.validation is not None
    assert error.validation.chain[0] == leaf_pin(world.stolen_name)
    assert (error.reason, error.library, error.verify_message) == ("CERTIFICATE_VERIFY_FAILED", "SSL", message)


def test_without_enforcement_the_same_request_reaches_the_attacker(world: World) -> None:
    world.pin_site()
    with open_tls(world, world.attacker, world.plain_context()) as tls:
        tls.sendall(REQUEST)
        tls.recv(4096)
    world.attacker.wait_idle()
    assert b"Bearer secret" in world.attacker.received


def test_the_error_survives_pickle_and_copy(world: World) -> None:
    world.pin_site()
    error = assert_refused_unheard(world, lambda: open_tls(world, world.attacker, world.context()))
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert (str(twin), twin.validation, twin.report) == (str(error), error.validation, error.report)


def test_a_pin_on_the_authority_covers_a_new_leaf_and_not_the_other_authority(world: World) -> None:
    world.store.pin(HOST, [Pin.from_certificate(world.honest.cert_pem.bytes())])
    world.site.show(world.backup)
    with open_tls(world, world.site, world.context()):
        pass
    assert_refused_unheard(world, lambda: open_tls(world, world.attacker, world.context()))


def test_certificates_beyond_the_validated_chain_are_ignored(world: World) -> None:
    # The attacker sends the site's real certificate along: §2.6, superfluous certificates MUST be ignored.
    world.pin_site()
    chain = b"".join(pem.bytes() for pem in (*world.stolen_name.cert_chain_pems, *world.certificate.cert_chain_pems))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    file = world.folder / "padded.pem"
    file.write_bytes(world.stolen_name.private_key_pem.bytes() + chain)
    context.load_cert_chain(file)
    world.attacker.use(context)
    error = assert_refused_unheard(world, lambda: open_tls(world, world.attacker, world.context()))
    assert error.report is not None
    assert len(error.report.served_chain) > 1
    assert error.report.validated_chain != error.report.served_chain


# -- what is remembered of a chain ------------------------------------------------------------------------------------


def test_a_leaf_never_seen_passes_under_a_pinned_issuer_and_is_the_one_that_is_noted(world: World) -> None:
    world.store.pin(HOST, [Pin.from_certificate(world.honest.cert_pem.bytes())])
    context = world.context()
    for shown in (world.certificate, world.backup, world.certificate):
        world.site.show(shown)
        with open_tls(world, world.site, context) as tls:
            peer = peer_of(tls)
        assert peer is not None
        assert peer.pins[0] == leaf_pin(shown)
    assert_refused_unheard(world, lambda: open_tls(world, world.attacker, context))


def test_a_leaf_that_passed_lends_nothing_to_another_of_its_issuer(world: World) -> None:
    world.store.pin(HOST, [leaf_pin(world.certificate)])
    context = world.context()
    with open_tls(world, world.site, context):
        pass
    world.site.show(world.backup)
    with pytest.raises(PinValidationError, match="none of its pinned keys"):
        open_tls(world, world.site, context)


def test_the_same_leaf_by_another_path_is_another_chain(world: World) -> None:
    # The intermediate is certified by both authorities, and the pinned key is that of the honest one alone.
    world.store.pin(HOST, [Pin.from_certificate(world.honest.cert_pem.bytes())])
    intermediate = world.honest.create_child_ca()
    leaf = intermediate.issue_cert(HOST)
    context = world.context()
    world.site.show(leaf)
    with open_tls(world, world.site, context):
        pass
    crossed = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    file = world.folder / "crossed.pem"
    file.write_bytes(
        leaf.private_key_pem.bytes() + leaf.cert_chain_pems[0].bytes() + cross_signed(intermediate, world.rogue)
    )
    crossed.load_cert_chain(file)
    world.attacker.use(crossed)
    with open_tls(world, world.attacker, world.plain_context()):
        pass  # it is valid but for the pins
    error = assert_refused_unheard(world, lambda: open_tls(world, world.attacker, context))
    assert error.validation is not None
    assert error.validation.chain[0] == leaf_pin(leaf)


def test_a_host_that_passed_as_unknown_is_held_to_its_pins_from_the_moment_it_has_some(world: World) -> None:
    context = world.context()
    for _ in range(2):
        with open_tls(world, world.attacker, context):
            pass
    with PinStore(world.store.path) as other:
        other.pin(HOST, world.header.pins)
    assert_refused_unheard(world, lambda: open_tls(world, world.attacker, context))


def test_what_passed_is_looked_at_again_when_the_pins_expire_and_when_the_clock_goes_back(world: World) -> None:
    clock = Clock()
    issuer = [Pin.from_certificate(world.honest.cert_pem.bytes())]
    with PinStore(world.folder / "expiring", clock=clock) as store:
        store.pin(HOST, issuer, expires_at=clock.now + 10, on_expiry="refuse")
        context = enforce(world.plain_context(), store)
        for _ in range(2):
            with open_tls(world, world.site, context):
                pass
        clock.now += 11
        with pytest.raises(PinValidationError, match="expired"):
            open_tls(world, world.site, context)
        store.pin(HOST, [leaf_pin(world.backup)], expires_at=clock.now + 10)
        clock.now += 11
        for _ in range(2):
            with open_tls(world, world.site, context):  # released, and so unknown
                pass
        clock.now -= 11
        with pytest.raises(PinValidationError, match="none of its pinned keys"):
            open_tls(world, world.site, context)


# -- the implicit handshake -------------------------------------------------------------------------------------------


def _sendfile(tls: ssl.SSLSocket, world: World) -> object:
    file = world.folder / "request"
    file.write_bytes(REQUEST)
    with file.open("rb") as opened:
        return tls.sendfile(opened)


IMPLICIT: dict[str, Callable[[ssl.SSLSocket, World], object]] = {
    "write": lambda tls, world: tls.write(REQUEST),
    "send": lambda tls, world: tls.send(REQUEST),
    "sendall": lambda tls, world: tls.sendall(REQUEST),
    "sendfile": _sendfile,
    "read": lambda tls, world: tls.read(1),
    "recv": lambda tls, world: tls.recv(1),
    "recv_into": lambda tls, world: tls.recv_into(bytearray(1)),
    "unwrap": lambda tls, world: tls.unwrap(),
}


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("name", IMPLICIT)
def test_io_before_the_handshake_runs_the_checking_handshake(world: World, name: str) -> None:
    # OpenSSL handshakes inside a write; do_handshake, where the check stands, would never run.
    world.pin_site()
    tls = world.context().wrap_socket(
        world.connect(world.attacker), server_hostname=HOST, do_handshake_on_connect=False
    )
    assert_refused_unheard(world, lambda: IMPLICIT[name](tls, world))


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("name", IMPLICIT)
def test_a_connection_shut_down_before_its_handshake_sends_nothing_in_the_clear(world: World, name: str) -> None:
    # ssl drops TLS with any shutdown, and has the socket below send from then on.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connection = socket.create_connection(listener.getsockname(), timeout=60)
        peer, _ = listener.accept()
        with (
            peer,
            world.context().wrap_socket(connection, server_hostname=HOST, do_handshake_on_connect=False) as tls,
        ):
            tls.shutdown(socket.SHUT_RD)
            with pytest.raises(OSError, match=os.strerror(errno.ENOTCONN)):
                IMPLICIT[name](tls, world)
            tls.close()
            assert peer.recv(4096) == b""


REPEATED: dict[str, Callable[[ssl.SSLSocket], object]] = {
    "write": lambda tls: tls.write(REQUEST),
    "sendall": lambda tls: tls.sendall(REQUEST),
    "recv": lambda tls: tls.recv(1),
    "do_handshake": lambda tls: tls.do_handshake(),
}


@pytest.mark.parametrize("name", REPEATED)
def test_a_refused_connection_stays_refused(world: World, name: str) -> None:
    world.pin_site()
    tls = world.context().wrap_socket(
        world.connect(world.attacker), server_hostname=HOST, do_handshake_on_connect=False
    )
    for _ in range(2):
        assert_refused_unheard(world, lambda: REPEATED[name](tls))
    assert peer_of(tls) is None


def test_a_socket_that_connects_later_is_checked(world: World) -> None:
    world.pin_site()
    tls = world.context().wrap_socket(socket.socket(), server_hostname=HOST)
    assert_refused_unheard(world, lambda: tls.connect(("127.0.0.1", world.attacker.port)))


def _pump(act: Callable[[], object], incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, wire: socket.socket) -> None:
    while True:
        try:
            act()
            return
        except ssl.SSLWantReadError:
            wire.sendall(outgoing.read())
            incoming.write(wire.recv(65_536))


@pytest.mark.parametrize("method", ["do_handshake", "write", "read", "unwrap"])
def test_an_ssl_object_is_checked_whatever_is_called_first(world: World, method: str) -> None:
    world.pin_site()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = world.context().wrap_bio(incoming, outgoing, server_hostname=HOST)
    arguments = {"write": (REQUEST,), "read": (1,)}.get(method, ())
    with world.connect(world.attacker) as connection:
        with pytest.raises(PinValidationError):
            _pump(lambda: getattr(tls, method)(*arguments), incoming, outgoing, connection)
        connection.sendall(outgoing.read())  # whatever a careless library would still flush
    world.attacker.wait_idle()
    assert world.attacker.application_bytes == 0
    with pytest.raises(PinValidationError):
        tls.write(REQUEST)


def test_every_method_that_moves_bytes_is_guarded() -> None:
    # A Python that adds one must be looked at: what is neither guarded nor listed here fails.
    harmless = {
        *("accept", "bind", "close", "connect", "connect_ex", "context", "detach", "do_handshake", "dup", "fileno"),
        *("get_inheritable", "getblocking", "getpeername", "getsockname", "getsockopt", "gettimeout", "listen"),
        *(
            "makefile",
            "set_inheritable",
            "setblocking",
            "setsockopt",
            "settimeout",
            "family",
            "type",
            "proto",
            "timeout",
        ),
        *("cipher", "compression", "get_channel_binding", "getpeercert", "pending", "selected_alpn_protocol"),
        *("selected_npn_protocol", "server_hostname", "server_side", "session", "session_reused", "shared_ciphers"),
        *("shutdown", "version", "verify_client_post_handshake", "get_verified_chain", "get_unverified_chain"),
        # AF_ALG sockets of the kernel's crypto, and Windows
        *("sendmsg_afalg", "ioctl", "share"),
    }
    for base, guarded in ((ssl.SSLSocket, SOCKET_IO), (ssl.SSLObject, OBJECT_IO)):
        public = {name for name in dir(base) if not name.startswith("_")}
        assert public - harmless == set(guarded)


# -- a chain is no proof ----------------------------------------------------------------------------------------------


def test_a_forged_leaf_cannot_borrow_the_authority_it_names(world: World) -> None:
    # Under CERT_NONE OpenSSL builds a "verified" chain from a forged leaf to the real authority.
    world.store.pin(HOST, [Pin.from_certificate(world.honest.cert_pem.bytes())])
    world.attacker.use(_shows(world, forged_leaf(world.honest)))
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
    loosen(context)
    with open_tls(world, world.site, context) as tls:
        peer = peer_of(tls)
        assert peer is not None
        assert peer.pins == ()  # and so nothing can be noted from it
    world.pin_site()
    with pytest.raises(PinValidationError, match="verification is switched off"):
        open_tls(world, world.site, context)


@pytest.mark.parametrize("connect_later", [False, True])
def test_a_context_tightened_between_wrap_and_handshake_proves_nothing(world: World, connect_later: bool) -> None:
    # OpenSSL copies the verify mode when the connection is made, so what the context says afterwards is no proof.
    world.pin_site()
    context = world.context()
    _no_verification(context)
    if connect_later:
        tls = context.wrap_socket(socket.socket(), server_hostname=HOST, do_handshake_on_connect=False)
        tls.connect(("127.0.0.1", world.site.port))
    else:
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
            _pump(tls_object.do_handshake, incoming, outgoing, connection)


class _TightensWhenMade(ssl.SSLContext):
    """A context that is loose while a connection is made, and strict again before the handshake begins."""

    armed = False

    def _wrap_socket(self, *args: object, **kwargs: object) -> object:
        made = getattr(super(), "_wrap_socket")(*args, **kwargs)  # noqa: B009 - typeshed has it not
        if self.armed:
            _tighten(self)
        return made


def _shows(world: World, made: tuple[bytes, bytes]) -> ssl.SSLContext:
    file = world.folder / "shown.pem"
    file.write_bytes(b"".join(made))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(file)
    return server


def test_a_context_that_was_loose_when_the_connection_was_made_refuses_a_chain_nobody_verified(world: World) -> None:
    world.store.pin(HOST, [Pin.from_certificate(world.honest.cert_pem.bytes())])
    world.attacker.use(_shows(world, forged_leaf(world.honest)))
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
    forged = _shows(world, forged_leaf(world.honest))
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


# -- resumed sessions -------------------------------------------------------------------------------------------------


def _session(world: World, context: ssl.SSLContext) -> ssl.SSLSession:
    with open_tls(world, world.site, context) as tls:
        tls.sendall(REQUEST)
        tls.recv(4096)  # TLS 1.3 sends its tickets with the first data
        session = tls.session
    assert session is not None
    return session


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["TLS1.2", "TLS1.3"])
def version(request: pytest.FixtureRequest, world: World) -> ssl.TLSVersion:
    world.site.maximum_version = request.param
    world.site.show(world.certificate)
    chosen: ssl.TLSVersion = request.param
    return chosen


@pytest.mark.usefixtures("version")
def test_a_resumed_session_is_held_against_the_pins_of_its_first_handshake(world: World) -> None:
    world.pin_site()
    context = world.context()
    session = _session(world, context)
    with context.wrap_socket(world.connect(world.site), server_hostname=HOST, session=session) as tls:
        assert tls.session_reused
        peer = peer_of(tls)
        assert peer is not None
        assert peer.pins[0] == leaf_pin(world.certificate)
        tls.sendall(REQUEST)
        assert tls.recv(4096).startswith(b"HTTP/1.1 200")
    # The host is pinned to another key meanwhile: the old handshake's key no longer does.
    world.store.pin(HOST, [leaf_pin(world.backup)])
    with pytest.raises(PinValidationError):
        context.wrap_socket(world.connect(world.site), server_hostname=HOST, session=session)


@pytest.mark.usefixtures("version")
def test_a_session_of_an_unenforced_handshake_is_no_proof(world: World) -> None:
    context = world.plain_context()
    session = _session(world, context)
    world.pin_site()
    enforce(context, world.store)
    with pytest.raises(PinValidationError, match="resumed"):
        context.wrap_socket(world.connect(world.site), server_hostname=HOST, session=session)


@pytest.mark.usefixtures("version")
def test_a_session_of_another_host_is_no_proof(world: World) -> None:
    context = world.context()
    with open_tls(world, world.site, context, "other.test") as tls:
        tls.sendall(REQUEST)
        tls.recv(4096)
        session = tls.session
    world.pin_site()
    with pytest.raises(PinValidationError):
        context.wrap_socket(world.connect(world.site), server_hostname=HOST, session=session)


@pytest.mark.usefixtures("version")
def test_a_session_that_the_connection_refuses_lends_it_no_proof(world: World) -> None:
    context = world.plain_context()
    with open_tls(world, world.attacker, context) as tls:
        tls.sendall(REQUEST)
        tls.recv(4096)
        unseen = tls.session
    world.pin_site()
    proved = _session(world, world.context())
    enforce(context, world.store)
    wire = world.connect(world.attacker)
    with context.wrap_socket(wire, server_hostname=HOST, session=unseen, do_handshake_on_connect=False) as tls:
        with pytest.raises(ValueError, match="different SSLContext"):
            tls.session = proved
        with pytest.raises(PinValidationError, match="resumed"):
            tls.do_handshake()


# -- contexts ---------------------------------------------------------------------------------------------------------


def test_truststore_is_enforced_where_openssl_verifies(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    truststore = pytest.importorskip("truststore")
    bundle = world.folder / "roots.pem"
    bundle.write_bytes(world.honest.cert_pem.bytes() + world.rogue.cert_pem.bytes())
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    context = enforce(truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT), world.store)
    world.pin_site()
    with open_tls(world, world.site, context) as tls:
        assert peer_of(tls) is not None
    assert_refused_unheard(world, lambda: open_tls(world, world.attacker, context))


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_truststore_is_refused_where_the_system_verifies(
    world: World, monkeypatch: pytest.MonkeyPatch, platform: str
) -> None:
    truststore = pytest.importorskip("truststore")
    context = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    monkeypatch.setattr("sys.platform", platform)
    with pytest.raises(UnenforceableContext, match="operating system"):
        enforce(context, world.store)


class _HandsOn:
    """All that a context has, and none itself."""

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
    with pytest.raises(UnenforceableContext, match="is no ssl"):
        enforce(_HandsOn(inside), world.store)  # type: ignore[type-var] # pyright: ignore[reportArgumentType]
    assert (inside.verify_mode, inside.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert inside.sslsocket_class is ssl.SSLSocket


class _Elsewhere(ssl.SSLContext):
    """A context that makes its connections by another one, which it does not show."""

    def __init__(self, protocol: int) -> None:
        self.other = ssl.SSLContext(protocol)

    def wrap_socket(self, sock: socket.socket, **kwargs: object) -> ssl.SSLSocket:  # type: ignore[override]
        return self.other.wrap_socket(sock, **kwargs)  # type: ignore[arg-type]

    def wrap_bio(self, *args: object, **kwargs: object) -> ssl.SSLObject:
        return self.other.wrap_bio(*args, **kwargs)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("made", "cause"),
    [
        (lambda: _Elsewhere(ssl.PROTOCOL_TLS_CLIENT), "other means"),
        (lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), "server's context"),
        (lambda: "not a context", "no ssl.SSLContext"),
        (lambda: True, "no ssl.SSLContext"),
    ],
    ids=["delegating", "server", "text", "bool"],
)
def test_a_context_that_cannot_be_enforced_is_refused(
    world: World, made: Callable[[], ssl.SSLContext], cause: str
) -> None:
    with pytest.raises(UnenforceableContext, match=cause):
        enforce(made(), world.store)


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


# -- names ------------------------------------------------------------------------------------------------------------


def test_an_ip_address_is_never_pinned(world: World) -> None:
    by_address = world.honest.issue_cert("127.0.0.1")
    world.site.show(by_address)
    with open_tls(world, world.site, world.context(), "127.0.0.1") as tls:
        peer = peer_of(tls)
    assert peer is not None
    assert world.store.note("127.0.0.1", str(world.header), peer.pins).outcome == "ignored"


def test_the_name_is_compared_canonically(world: World) -> None:
    world.pin_site()
    assert_refused_unheard(world, lambda: open_tls(world, world.attacker, world.context(), "BANK.Test"))


def test_a_connection_without_a_name_is_refused(world: World) -> None:
    context = world.context()
    context.check_hostname = False
    with pytest.raises(PinValidationError, match="host name"):
        open_tls(world, world.site, context, None)


# -- what a refusal sets off ------------------------------------------------------------------------------------------


def test_the_callback_sees_the_violation_and_cannot_hide_it(world: World) -> None:
    world.pin_site()
    seen: list[PinValidationError] = []

    def broken(error: PinValidationError) -> None:
        seen.append(error)
        raise RuntimeError("the callback is broken")

    context = enforce(world.plain_context(), world.store, on_violation=broken)
    error = assert_refused_unheard(world, lambda: open_tls(world, world.attacker, context))
    assert seen == [error]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x03"),  # X.509 version 4
        (b"\x0c\x04\0odd", b"\x03\x04\0odd"),  # a common name that is a BIT STRING
    ],
    ids=["version 4", "bit string"],
)
def test_a_certificate_that_is_hard_to_read_hides_no_violation(
    world: World, caplog: pytest.LogCaptureFixture, old: bytes, new: bytes
) -> None:
    world.store.pin(HOST, world.header.pins, report_uri="https://report.test/r")
    world.attacker.use(_shows(world, odd_leaf(world.rogue, HOST, old, new)))
    with open_tls(world, world.attacker, world.plain_context()):
        pass  # it is valid but for the pins
    seen: list[PinValidationError] = []
    kept = by_hand(world.store)
    context = enforce(world.plain_context(), world.store, on_violation=seen.append, reporter=kept)
    error = assert_refused_unheard(world, lambda: open_tls(world, world.attacker, context))
    assert "none of its pinned keys" in str(error)
    assert "dynpin hosts forget bank.test" in str(error)
    assert seen == [error]
    assert "Pin Validation failed" in caplog.text
    assert [report.noted_host for report in kept.pending()] == [HOST]


class _BrokenReporter:
    def add(self, report: Report, report_uri: str) -> object:
        raise RuntimeError(f"{report.hostname} to {report_uri}: the reporter is broken")


def test_a_broken_reporter_hides_no_violation(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.store.pin(HOST, world.header.pins, report_uri="https://report.test/r")
    context = enforce(world.plain_context(), world.store, reporter=_BrokenReporter())
    error = assert_refused_unheard(world, lambda: open_tls(world, world.attacker, context))
    assert error.report is not None
    assert "the reporter is broken" in caplog.text


def test_the_command_to_paste_is_one_command_whatever_the_names(world: World) -> None:
    host = "a;id;$(reboot).evil.test"
    folder = world.folder / "my pins; $(id)"
    folder.mkdir()
    world.attacker.use(_shows(world, odd_leaf(world.rogue, host, b"odd", b"odd")))
    with PinStore(folder / "pins") as store:
        store.pin(host, world.header.pins)
        context = enforce(world.plain_context(), store)
        error = assert_refused_unheard(world, lambda: open_tls(world, world.attacker, context, host))
        command = str(error).partition("is right:  ")[2]
        assert shlex.split(command) == ["dynpin", "hosts", "forget", host, "--store", str(store.path)]
        context.check_hostname = False
        error = assert_refused_unheard(world, lambda: open_tls(world, world.attacker, context, host))
        assert str(error).endswith(f"give up the pins:  {command}")


def test_the_report_has_both_chains_and_the_port_where_the_adapter_told_it(world: World) -> None:
    world.store.pin(HOST, world.header.pins, report_uri="https://report.test/r")
    error = assert_refused_unheard(world, lambda: open_tls(world, world.attacker, world.context()))
    assert error.report is not None
    assert error.report.port is None  # behind a proxy the peer's port is not the site's: never guessed
    assert Pin.from_certificate(error.report.served_chain[0]) == leaf_pin(world.stolen_name)
    assert Pin.from_certificate(error.report.validated_chain[-1]) == Pin.from_certificate(world.rogue.cert_pem.bytes())
    token = request_site.set((HOST, 8443))
    try:
        error = assert_refused_unheard(world, lambda: open_tls(world, world.attacker, world.context()))
    finally:
        request_site.reset(token)
    assert error.report is not None
    assert error.report.port == 8443


def test_pins_that_cannot_be_read_refuse(world: World) -> None:
    world.pin_site()
    context = world.context()
    with sqlite3.connect(world.store.path) as other:
        other.execute("DROP TABLE hosts")
    other.close()
    with pytest.raises(PinValidationError, match="cannot be read"):
        open_tls(world, world.site, context)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_enforces_and_the_parent_goes_on(world: World) -> None:
    world.pin_site()
    context = world.context()
    child = os.fork()
    if child == 0:  # pragma: no cover - the child's own process
        try:
            open_tls(world, world.attacker, context)
        except PinValidationError:
            world.store.pin("from.the.child.test", world.header.pins)
            os._exit(0)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert world.store.known_host("from.the.child.test") is not None
    assert_refused_unheard(world, lambda: open_tls(world, world.attacker, context))
