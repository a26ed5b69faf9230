"""Run in mitmproxy's environment: a server that renegotiates, with a plain and a guarded pyOpenSSL connection."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

from OpenSSL import SSL

from dynpin.clientstore import PinStore
from dynpin.clientstore.enforcement import Enforcement
from dynpin.lab.proxy.connection import GuardedConnection


def carry(source: Any, target: Any) -> None:
    """Pass on the bytes that one side has to send."""
    with contextlib.suppress(SSL.WantReadError):
        while True:
            target.bio_write(source.bio_read(65_536))


def received(client: Any, chain: str, key: str) -> str:
    """What the client reads from a server that asks for a new handshake before it answers."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_max_proto_version(SSL.TLS1_2_VERSION)
    context.use_certificate_chain_file(chain)
    context.use_privatekey_file(key)
    server = SSL.Connection(context)
    server.set_accept_state()
    established = False
    while not established:
        with contextlib.suppress(SSL.WantReadError):
            client.do_handshake()
            established = True
        carry(client, server)
        with contextlib.suppress(SSL.WantReadError):
            server.do_handshake()
        carry(server, client)
    client.sendall(b"question")
    carry(client, server)
    server.recv(100)
    server.renegotiate()
    server.do_handshake()
    server.sendall(b"answer")
    carry(server, client)
    for _ in range(4):
        try:
            return str(client.recv(100).decode())
        except SSL.WantReadError:
            carry(client, server)
            with contextlib.suppress(SSL.WantReadError):
                server.do_handshake()
            carry(server, client)
        except SSL.ZeroReturnError:
            return "the end"
    return "nothing"


def plain(roots: str) -> Any:
    """A connection as mitmproxy makes it."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.load_verify_locations(roots)
    context.set_verify(SSL.VERIFY_PEER, None)
    client = SSL.Connection(context)
    client.set_tlsext_host_name(b"bank.test")
    client.set_connect_state()
    return client


def guarded(roots: str, store: PinStore) -> GuardedConnection:
    """A connection as the add-on guards it."""
    rule = Enforcement(store)
    return GuardedConnection(
        plain(roots), rule, name=None, port=443, on_passed=lambda _: None, on_refused=lambda *_: None
    )


if __name__ == "__main__":
    roots, chain, key = sys.argv[1:]
    with PinStore.private() as store:
        print("plain:", received(plain(roots), chain, key))
        print("guarded:", received(guarded(roots, store), chain, key))
