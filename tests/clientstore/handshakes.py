"""Shared by the tests of enforcement: a handshake, and a refusal before anything was sent."""

from __future__ import annotations

import gc
import socket
import ssl
from collections.abc import Callable

import pytest

from dynpin import PinValidationError
from dynpin.lab.network import TLSServer

from .world import HOST, World

REQUEST = b"GET / HTTP/1.1\r\nHost: bank.test\r\nAuthorization: Bearer secret\r\n\r\n"


def open_tls(world: World, server: TLSServer, context: ssl.SSLContext, host: str | None = HOST) -> ssl.SSLSocket:
    return context.wrap_socket(world.connect(server), server_hostname=host)


def assert_refused_unheard(world: World, attempt: Callable[[], object]) -> PinValidationError:
    with pytest.raises(PinValidationError) as caught:
        attempt()
    gc.collect()  # closes what the attempt left open, so that the attacker's count is final
    world.attacker.wait_idle()
    assert world.attacker.connections > 0
    assert world.attacker.application_bytes == 0
    return caught.value


def pump(act: Callable[[], object], incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, wire: socket.socket) -> None:
    while True:
        try:
            act()
            return
        except ssl.SSLWantReadError:
            wire.sendall(outgoing.read())
            incoming.write(wire.recv(65_536))


def shows(world: World, made: tuple[bytes, bytes]) -> ssl.SSLContext:
    file = world.folder / "shown.pem"
    file.write_bytes(b"".join(made))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(file)
    return server
