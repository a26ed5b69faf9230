"""The implicit handshake and resumed sessions: the first method that moves bytes runs the check."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from dynpin import PinValidationError
from dynpin.clientstore import enforce, peer_of
from dynpin.clientstore.enforcement import verified_chain
from dynpin.clientstore.enforcement.guards import OBJECT_IO, SOCKET_IO

from .handshakes import REQUEST, assert_refused_unheard, open_tls, pump
from .world import HOST, World, leaf_pin, tls_world


@pytest.fixture
def world(honest: trustme.CA, rogue: trustme.CA, tmp_path: Path) -> Iterator[World]:
    with tls_world(honest, rogue, tmp_path, "other.test") as made:
        yield made


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
    # OpenSSL handshakes inside a write; do_handshake, which contains the check, would never run.
    world.pin_site()
    tls = world.context().wrap_socket(
        world.connect(world.attacker), server_hostname=HOST, do_handshake_on_connect=False
    )
    assert_refused_unheard(world, lambda: IMPLICIT[name](tls, world))


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("name", IMPLICIT)
def test_a_connection_shut_down_before_its_handshake_sends_nothing_in_the_clear(world: World, name: str) -> None:
    # After a shutdown ssl drops TLS, and sends over the plain socket from then on.
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


@pytest.mark.parametrize("method", ["do_handshake", "write", "read", "unwrap"])
def test_an_ssl_object_is_checked_whatever_is_called_first(world: World, method: str) -> None:
    world.pin_site()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = world.context().wrap_bio(incoming, outgoing, server_hostname=HOST)
    arguments = {"write": (REQUEST,), "read": (1,)}.get(method, ())
    with world.connect(world.attacker) as connection:
        with pytest.raises(PinValidationError):
            pump(lambda: getattr(tls, method)(*arguments), incoming, outgoing, connection)
        connection.sendall(outgoing.read())  # what a careless library would still send
    world.attacker.wait_idle()
    assert world.attacker.application_bytes == 0
    with pytest.raises(PinValidationError):
        tls.write(REQUEST)


def test_every_method_that_moves_bytes_is_guarded() -> None:
    # A new method in a later Python must be examined: one that is neither guarded nor listed here fails.
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
def test_a_resumed_session_is_checked_with_the_chain_of_its_first_handshake(world: World) -> None:
    world.pin_site()
    context = world.context()
    session = _session(world, context)
    with context.wrap_socket(world.connect(world.site), server_hostname=HOST, session=session) as tls:
        assert tls.session_reused
        assert verified_chain(tls) == ()
        peer = peer_of(tls)
        assert peer is not None
        assert peer.pins[0] == leaf_pin(world.certificate)
        tls.sendall(REQUEST)
        assert tls.recv(4096).startswith(b"HTTP/1.1 200")
    # The host is now pinned to another key: the old handshake's key no longer matches.
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
def test_a_session_that_the_connection_refuses_proves_nothing(world: World) -> None:
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
