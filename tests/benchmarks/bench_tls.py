"""What pinning adds to a handshake and to a request. docs/explanation/performance.md has the table.

``make bench ARGS=tests/benchmarks/bench_tls.py``
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
import requests
import trustme
from requests.adapters import HTTPAdapter

from dynpin import KnownPinnedHost, Pin
from dynpin.clientstore import PinStore, enforce
from dynpin.clientstore.aiohttp import pinned_session
from dynpin.clientstore.httpx import PinnedClient
from dynpin.clientstore.requests import PinnedSession

from ..clientstore.world import leaf_pin
from .turns import Turns


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench")


# -- handshakes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pinned_key", ["issuer", "leaf", "none"])
@pytest.mark.parametrize(("chain", "aim"), [("warm", 1.06), ("never seen", 1.15)])
def test_a_pinned_handshake_beside_a_plain_one(folder: Path, chain: str, aim: float, pinned_key: str) -> None:
    """TLS 1.3, P-256, a chain of three, both ends in this process, whose processor time counts."""
    authority = trustme.CA()
    issuer = authority.create_child_ca()
    contexts = [ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) for _ in range(2)]
    for context in contexts:
        authority.configure_trust(context)
    turns, each = Turns(), 20
    sites: list[tuple[str, ssl.SSLContext]] = []
    with PinStore(folder / f"handshakes-{chain}-{pinned_key}") as store:
        enforce(contexts[True], store)
        for batch in range(150):
            if chain == "never seen" or not sites:
                names = [f"bank{batch}-{number}.example" for number in range(each if chain == "never seen" else 1)]
                leaves = [issuer.issue_cert(name) for name in names]
                sites = [(name, server_of(leaf)) for name, leaf in zip(names, leaves, strict=True)]
                if pinned_key == "leaf":
                    store.merge(static(name, leaf_pin(leaf)) for name, leaf in zip(names, leaves, strict=True))
                elif pinned_key == "issuer":
                    store.merge(static(name, Pin.from_certificate(issuer.cert_pem.bytes())) for name in names)
            for pinned in turns.order():
                with turns.turn(pinned):
                    for number in range(each):
                        name, server = sites[number % len(sites)]
                        handshake(contexts[pinned], server, name)
    turns.tell_processor(f"handshake, {chain}, key of {pinned_key} pinned", each, aim)


def server_of(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def static(name: str, pin: Pin) -> KnownPinnedHost:
    return KnownPinnedHost(name, (pin,), False, None, time.time(), None, "static")


def handshake(client: ssl.SSLContext, server: ssl.SSLContext, name: str) -> None:
    """A whole handshake through memory."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(back, there, server_hostname=name),
        server.wrap_bio(there, back, server_side=True),
    )
    done = [False, False]
    while not all(done):
        for index, end in enumerate(ends):
            try:
                end.do_handshake()
                done[index] = True
            except ssl.SSLWantReadError:
                pass


# -- requests ---------------------------------------------------------------------------------------------------------

SERVE = """
import socket, ssl, sys, threading
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1])
listener = socket.create_server(("127.0.0.1", 0), backlog=128)
print(listener.getsockname()[1], flush=True)
answer = b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n" + sys.argv[2].encode() + b"\\r\\nok"
def serve(connection):
    try:
        with context.wrap_socket(connection, server_side=True) as tls:
            while tls.recv(65536):
                tls.sendall(answer)
                if b"close" in answer:
                    return
    except OSError:
        pass
while True:
    connection, _ = listener.accept()
    if b"close" in answer:
        serve(connection)
    else:
        threading.Thread(target=serve, args=(connection,), daemon=True).start()
"""


@dataclass
class Site:
    """A server in a process of its own."""

    url: str
    authority: trustme.CA
    roots: Path

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.authority.configure_trust(context)
        return context


@contextlib.contextmanager
def serving(folder: Path, fields: Callable[[trustme.LeafCert], str]) -> Iterator[Site]:
    """A site whose responses have these fields, each with its line end."""
    authority = trustme.CA()
    certificate = authority.create_child_ca().issue_cert("localhost")
    pem, roots = folder / "site.pem", folder / "site-roots.pem"
    pem.write_bytes(certificate.private_key_and_cert_chain_pem.bytes())
    roots.write_bytes(authority.cert_pem.bytes())
    command = [sys.executable, "-c", SERVE, str(pem), fields(certificate)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield Site(f"https://localhost:{int(server.stdout.readline())}/", authority, roots)
        server.kill()


def pins_and_close(certificate: trustme.LeafCert) -> str:
    """The key and a backup pinned with each response, and each connection ended."""
    pins = f'pin-sha256="{leaf_pin(certificate)}"; pin-sha256="{Pin(bytes(32))}"; max-age=1000000'
    return f"Public-Key-Pins: {pins}\r\nConnection: close\r\n"


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[Site]:
    with serving(folder, pins_and_close) as site:
        yield site


@pytest.fixture
def site_without_pins(tmp_path: Path) -> Iterator[Site]:
    """Like most of the world; and it keeps its connections."""
    with serving(tmp_path, lambda _: "") as site:
        yield site


class OneContext(HTTPAdapter):
    """requests without pins, and with one context for all connections, as dynpin's adapter has it."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, ssl_context=self._context, **kwargs)

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Load no roots into the context of each connection."""


Get = Callable[[], int]


Library = Callable[[Site, PinStore], contextlib.AbstractContextManager[tuple[Get, Get]]]


@contextlib.contextmanager
def by_httpx(site: Site, store: PinStore) -> Iterator[tuple[Get, Get]]:
    with (
        httpx.Client(verify=site.context(), trust_env=False) as plain,
        PinnedClient(store, verify=site.context(), trust_env=False) as pinned,
    ):
        yield lambda: plain.get(site.url).status_code, lambda: pinned.get(site.url).status_code


@contextlib.contextmanager
def by_requests(site: Site, store: PinStore, adapter: HTTPAdapter | None = None) -> Iterator[tuple[Get, Get]]:
    with requests.Session() as plain, PinnedSession(store, context=site.context()) as pinned:
        plain.mount("https://", adapter or OneContext(site.context()))
        plain.trust_env = pinned.trust_env = False
        plain.verify = str(site.roots)
        yield lambda: plain.get(site.url).status_code, lambda: pinned.get(site.url).status_code


def by_requests_as_it_comes(site: Site, store: PinStore) -> contextlib.AbstractContextManager[tuple[Get, Get]]:
    return by_requests(site, store, HTTPAdapter())


@pytest.mark.parametrize("library", [by_httpx, by_requests, by_requests_as_it_comes])
def test_a_thousand_requests_on_new_connections(site: Site, folder: Path, library: Library) -> None:
    turns = Turns()
    with PinStore(folder / library.__name__) as store, library(site, store) as gets:
        for _ in range(100):
            for pinned in turns.order():
                with turns.turn(pinned):
                    for _ in range(10):
                        assert gets[pinned]() == 200
        assert store.known_host("localhost") is not None
    tell_requests(library.__name__, turns)


@pytest.mark.parametrize("library", [by_httpx, by_requests])
def test_two_thousand_requests_on_one_connection(site_without_pins: Site, tmp_path: Path, library: Library) -> None:
    turns = Turns()
    with PinStore(tmp_path / "store") as store, library(site_without_pins, store) as gets:
        for _ in range(100):
            for pinned in turns.order():
                with turns.turn(pinned):
                    for _ in range(20):
                        assert gets[pinned]() == 200
    turns.tell_processor(f"on one connection {library.__name__}, processor", 20)
    turns.tell_wall(f"on one connection {library.__name__}, wall time", 20)


def test_a_thousand_requests_through_aiohttp(site: Site, folder: Path) -> None:
    turns = Turns()

    async def run(store: PinStore) -> None:
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=site.context())) as plain,
            pinned_session(store, ssl=site.context()) as pinned_one,
        ):
            sessions = (plain, pinned_one)
            for _ in range(100):
                for pinned in turns.order():
                    with turns.turn(pinned):
                        for _ in range(10):
                            async with sessions[pinned].get(site.url) as response:
                                assert await response.read() == b"ok"

    with PinStore(folder / "by_aiohttp") as store:
        asyncio.run(run(store))
        assert store.known_host("localhost") is not None
    tell_requests("by_aiohttp", turns)


def tell_requests(library: str, turns: Turns) -> None:
    turns.tell_processor(f"requests {library}, processor time", 10)
    turns.tell_wall(f"requests {library}, wall time", 10, aim=1.03)
