"""How long `dynpin check` takes on loopback, of one site and of a thousand, beside plain https requests.

``make bench ARGS=tests/benchmarks/bench_check.py``
"""

from __future__ import annotations

import asyncio
import http.client
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial

import pytest

from dynpin import Pin, PublicKeyPins
from dynpin.deploy.parallel import all_of
from tests.deploy.servers import Site, make_site
from tests.deploy.test_check import NEW

from .turns import against, tell

SITES, AT_ONCE, PATHS = 1000, 16, 3
DAY = 86_400


def serve(both: str, header: str) -> None:
    """One process answers all sites, and leaves its connections open, as servers do. Its first line is the port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            try:
                while await reader.readuntil(b"\r\n\r\n"):
                    writer.write(
                        f"HTTP/1.1 200 OK\r\nPublic-Key-Pins: {header}\r\nContent-Length: 2\r\n\r\nok".encode()
                    )
            except (asyncio.IncompleteReadError, OSError):
                return

    async def run() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(both)
        server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context, backlog=256)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    asyncio.run(run())


@contextmanager
def served(site: Site) -> Iterator[int]:
    header = str(PublicKeyPins((Pin.from_file(site.chain), NEW), 30 * DAY))
    command = [sys.executable, "-c", f"from {__name__} import serve; serve({str(site.both)!r}, {header!r})"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield int(server.stdout.readline())
        finally:
            server.terminate()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A folder of sites, each with its dynpin.toml and its own copy of the chain."""
    site = make_site(tmp_path_factory.mktemp("sites"), "*.example.com")
    for number in range(SITES):
        folder = site.folder / f"{number:04}"
        folder.mkdir()
        (folder / "chain.pem").write_bytes(site.chain.read_bytes())
        (folder / "dynpin.toml").write_text(
            f'hosts = ["s{number:04}.example.com"]\nkeys = ["chain.pem"]\nbackups = [{{ pin = "{NEW}" }}]\n'
            '[policy]\nmax_age = "30 days"\n'
        )
    return site


def dynpin(*arguments: str) -> tuple[float, str]:
    """Seconds that the command takes, its start with it, and its last line."""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "dynpin", *arguments], capture_output=True, text=True, check=False)
    took = time.perf_counter() - began
    assert done.returncode == 0, done.stdout + done.stderr
    return took, done.stdout.splitlines()[-1]


def ask(context: ssl.SSLContext, port: int, number: int) -> None:
    """As many requests over one connection as a check makes."""
    name = f"s{number:04}.example.com"
    plain = socket.create_connection(("127.0.0.1", port))
    connection = http.client.HTTPConnection(name, port)
    with context.wrap_socket(plain, server_hostname=name) as connection.sock:
        for path in ("/", "/a", "/b")[:PATHS]:
            connection.request("GET", path)
            connection.getresponse().read()


def test_one_site(site: Site) -> None:
    with served(site) as port:
        where = ("--ca", str(site.roots), "--address", f"127.0.0.1:{port}")
        file = site.folder / "0000" / "dynpin.toml"
        took = sorted(dynpin("check", "--inventory", str(file), *where)[0] for _ in range(5))
    tell("dynpin check of one site, its start with it", seconds=f"{took[2]:.2f}", aim=against(1.0, took[2]))


def test_a_thousand_sites(site: Site) -> None:
    context = site.client()
    with served(site) as port:
        began = time.perf_counter()
        all_of([partial(ask, context, port, number) for number in range(SITES)], AT_ONCE)
        plain = time.perf_counter() - began
        where = ("--ca", str(site.roots), "--address", f"127.0.0.1:{port}", "--at-once", str(AT_ONCE))
        took, last = dynpin("check", "--all", str(site.folder), *where)
    assert last == f"{SITES} sites, 0 with a finding."
    tell(
        f"dynpin check --all, {SITES} sites",
        seconds=f"{took:.1f}",
        plain_requests=f"{plain:.1f}",
        ratio=f"{took / plain:.2f}",
    )
