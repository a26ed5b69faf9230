"""What pinning costs a client: opening the store, look-ups, notings, handshakes, requests.

Each figure stands beside a plain one of the same run. The two take turns of some milliseconds, and what counts is the
ratio of each two turns, so that a busy machine slows both alike: ``make bench ARGS=tests/benchmarks/bench_store.py``.
docs/performance.md has the table.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import shutil
import sqlite3
import ssl
import statistics
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
from dynpin.lab.network import TLSServer

from ..clientstore.world import leaf_pin
from .crowd import fill_store, fill_wget2, host

SIZES = (1_000, 1_000_000)
WGET2 = shutil.which("wget2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench")


def tell(what: str, **figures: object) -> None:
    print(f"\n{what:<48}" + "  ".join(f"{name} {value}" for name, value in figures.items()))


class Turns:
    """Two ways to do the same that take turns, and how long each turn took.

    Processor time counts this process alone; wall time is what a person waits.
    """

    def __init__(self) -> None:
        self._begun = (0.0, 0.0)
        self._processor: tuple[list[float], list[float]] = ([], [])
        self._wall: tuple[list[float], list[float]] = ([], [])

    def order(self) -> tuple[bool, bool]:
        """Plain and pinned, in the order of the next two turns."""
        return (False, True) if len(self._wall[0]) % 2 else (True, False)

    @contextlib.contextmanager
    def turn(self, pinned: bool) -> Iterator[None]:
        worked, waited = time.process_time(), time.perf_counter()
        yield
        self._wall[pinned].append(time.perf_counter() - waited)
        self._processor[pinned].append(time.process_time() - worked)

    def tell_processor(self, what: str, each: int, limit: float | None = None) -> None:
        _tell_turns(what, self._processor, each, limit)

    def tell_wall(self, what: str, each: int, limit: float | None = None) -> None:
        _tell_turns(what, self._wall, each, limit)


def _tell_turns(what: str, turns: tuple[list[float], list[float]], each: int, limit: float | None) -> None:
    """The median of the ratios, its quarters, and the ratio of the fastest turns; the median is held to the limit."""
    # In the first turns all is new to either side.
    plain, pinned = ([seconds / each * 1e6 for seconds in one[4:]] for one in turns)
    low, middle, high = statistics.quantiles((b / a for a, b in zip(plain, pinned, strict=True)), n=4)
    tell(
        what,
        plain_us=f"{statistics.median(plain):.0f}",
        pinned_us=f"{statistics.median(pinned):.0f}",
        ratio=f"{middle:.3f} ({low:.3f} to {high:.3f})",
        fastest=f"{min(pinned) / min(plain):.3f}",
    )
    assert limit is None or middle <= limit


# -- opening ----------------------------------------------------------------------------------------------------------

OPEN = """
import json, os, sys, time
from dynpin.clientstore import PinStore
def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
before, begun = resident(), time.perf_counter()
known = PinStore(sys.argv[1]).known_host(sys.argv[2])
seconds = time.perf_counter() - begun
assert known is not None
print(json.dumps([seconds * 1e3, (resident() - before) / 1e6]))
"""


def test_opening_and_the_first_look_up(folder: Path) -> None:
    runs: dict[int, list[list[float]]] = {size: [] for size in SIZES}
    for size in SIZES:
        fill_store(folder / f"store-{size}", size)
    for number in range(31):
        for size in SIZES:
            command = [sys.executable, "-c", OPEN, str(folder / f"store-{size}"), host(number * size // 31)]
            runs[size].append(json.loads(subprocess.run(command, capture_output=True, check=True).stdout))
    for size in SIZES:
        milliseconds, megabytes = zip(*runs[size], strict=True)
        tell(
            f"open and first look-up, {size:,} hosts",
            median_ms=f"{statistics.median(milliseconds):.2f}",
            fastest_ms=f"{min(milliseconds):.2f}",
            MB=f"{statistics.median(megabytes):.1f}",
        )
    small, large = (statistics.median(run[0] for run in runs[size]) for size in SIZES)
    assert min(run[0] for run in runs[SIZES[-1]]) <= 2
    assert large <= 1.25 * small


@pytest.mark.skipif(WGET2 is None, reason="wget2 is not installed (Debian: apt-get install wget2)")
def test_wget2_with_the_same_million(folder: Path) -> None:
    assert WGET2 is not None
    authority = trustme.CA()
    roots = folder / "roots.pem"
    roots.write_bytes(authority.cert_pem.bytes())
    figures: dict[int, tuple[float, float]] = {}
    with TLSServer(authority.issue_cert("localhost")) as server:
        for size in (1, SIZES[-1]):
            file = folder / f"hpkp-{size}"
            fill_wget2(file, size)
            command = [WGET2, "--no-config", "--hpkp", f"--hpkp-file={file}", f"--ca-certificate={roots}", "--no-hsts"]
            command += ["--tries=1", "--no-ocsp", "--no-tls-resume", "-q", "-O", "/dev/null", server.url("localhost")]
            begun = time.perf_counter()
            child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            figures[size] = (time.perf_counter() - begun, usage.ru_maxrss / 1e3)
            assert child.returncode == 0
    (bare, bare_mb), (full, full_mb) = figures.values()
    tell(
        "wget2 with 1,000,000 hosts, beyond an empty run",
        ms=f"{(full - bare) * 1e3:.0f}",
        MB=f"{full_mb - bare_mb:.0f}",
    )


# -- look-ups and notings ---------------------------------------------------------------------------------------------


def test_a_warm_look_up_beside_a_select(folder: Path) -> None:
    with PinStore(folder / "lookup") as store, contextlib.closing(sqlite3.connect(folder / "lookup")) as plain:
        store.pin("api.bank.example", [Pin(bytes(32))])
        for what, name in (("a pinned host", "api.bank.example"), ("an unknown host", "www.unknown.example")):
            select = functools.partial(plain.execute, "SELECT * FROM hosts WHERE host = ?", (name,))
            asks: tuple[Callable[[], object], ...] = (
                lambda select=select: select().fetchall(),  # type: ignore[misc] # mypy knows no default
                functools.partial(store.known_host, name),
            )
            turns = Turns()
            for _ in range(200):
                for pinned in turns.order():
                    with turns.turn(pinned):
                        for _ in range(500):
                            asks[pinned]()
            turns.tell_processor(f"warm look-up of {what}, beside a SELECT", 500)


NOTE = """
import os, sys
from dynpin import Pin
from dynpin.clientstore import PinStore
from dynpin.clientstore.store import registrable_domain
kind, path, worker, count = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
leaf, backup = (Pin(bytes([n]) * 32) for n in (1, 2))
registrable_domain("warm.example")
if kind == "note":
    store = PinStore(path)
else:
    file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
print("ready", flush=True)
sys.stdin.readline()
for number in range(count):
    if kind == "note":
        header = f'pin-sha256="{leaf}"; pin-sha256="{backup}"; max-age={1000000 + number}'
        noting = store.note(f"h{number}.w{worker}.example", header, [leaf])
        assert noting.outcome == "noted", noting
    else:
        os.write(file, b"x" * 200)
        os.fdatasync(file)
"""


def per_second(kind: str, path: Path, workers: int, count: int) -> float:
    with contextlib.ExitStack() as stack:
        children = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", NOTE, kind, str(path), str(worker), str(count)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for worker in range(workers)
        ]
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        begun = time.perf_counter()
        for child in children:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.close()
        assert [child.wait() for child in children] == [0] * workers
        return workers * count / (time.perf_counter() - begun)


@pytest.mark.parametrize("workers", [1, 8])
def test_notings_beside_append_and_fdatasync(folder: Path, workers: int) -> None:
    rates: list[tuple[float, float]] = []
    count = 800 // workers
    for turn in range(7):
        store, plain = folder / f"notes-{workers}-{turn}", folder / f"appended-{workers}-{turn}"
        PinStore(store).close()
        # One process appends, however many note: that is what the disk can do for somebody who shares no syncs.
        rates.append((per_second("note", store, workers, count), per_second("append", plain, 1, 400)))
        with PinStore(store) as kept:
            assert len(kept) == workers * count  # none is lost
    ratios = sorted(notings / appends for notings, appends in rates)
    tell(
        f"durable notings a second, {workers} processes",
        notings=f"{statistics.median(rate[0] for rate in rates):.0f}",
        appends=f"{statistics.median(rate[1] for rate in rates):.0f}",
        ratio=f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})",
    )


# -- handshakes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chain", "pinned_key", "limit"),
    [
        ("warm", "issuer", 1.06),
        ("warm", "none", 1.06),
        ("never seen", "issuer", 1.15),
        ("never seen", "leaf", 1.15),
        ("never seen", "none", 1.15),
    ],
)
def test_a_pinned_handshake_beside_a_plain_one(folder: Path, chain: str, pinned_key: str, limit: float) -> None:
    """TLS 1.3, P-256, a chain of three, both ends in this process, by its processor time: the work alone counts."""
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
                count = each if chain == "never seen" else 1
                leaves = {f"bank{batch}-{number}.example": issuer for number in range(count)}
                certificates = {name: issuer.issue_cert(name) for name in leaves}
                sites = [(name, server_of(leaf)) for name, leaf in certificates.items()]
                keys = {
                    "issuer": lambda leaf: Pin.from_certificate(issuer.cert_pem.bytes()),
                    "leaf": leaf_pin,
                }
                if pinned_key in keys:
                    store.merge(static(name, keys[pinned_key](leaf)) for name, leaf in certificates.items())
            for pinned in turns.order():
                with turns.turn(pinned):
                    for number in range(each):
                        name, server = sites[number % len(sites)]
                        handshake(contexts[pinned], server, name)
    turns.tell_processor(f"handshake, {chain}, key of {pinned_key} pinned", each, limit)


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
import socket, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1])
listener = socket.create_server(("127.0.0.1", 0), backlog=128)
print(listener.getsockname()[1], flush=True)
answer = f"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\nPublic-Key-Pins: {sys.argv[2]}\\r\\n"
answer += "Connection: close\\r\\n\\r\\nok"
while True:
    connection, _ = listener.accept()
    try:
        with context.wrap_socket(connection, server_side=True) as tls:
            tls.recv(65536)
            tls.sendall(answer.encode())
    except OSError:
        pass
"""


@dataclass
class Site:
    """A server in a process of its own that ends each connection, and pins its key and a backup with each response."""

    url: str
    authority: trustme.CA
    roots: Path

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.authority.configure_trust(context)
        return context


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[Site]:
    authority = trustme.CA()
    certificate = authority.create_child_ca().issue_cert("localhost")
    pem, roots = folder / "site.pem", folder / "site-roots.pem"
    pem.write_bytes(certificate.private_key_and_cert_chain_pem.bytes())
    roots.write_bytes(authority.cert_pem.bytes())
    header = f'pin-sha256="{leaf_pin(certificate)}"; pin-sha256="{Pin(bytes(32))}"; max-age=1000000'
    command = [sys.executable, "-c", SERVE, str(pem), header]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield Site(f"https://localhost:{int(server.stdout.readline())}/", authority, roots)
        server.kill()


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


def by_httpx(site: Site, store: PinStore) -> tuple[Get, Get]:
    clients = (httpx.Client(verify=site.context(), trust_env=False), None)
    pinned = PinnedClient(store, verify=site.context(), trust_env=False)
    assert clients[0] is not None
    plain = clients[0]
    return lambda: plain.get(site.url).status_code, lambda: pinned.get(site.url).status_code


def by_requests(site: Site, store: PinStore, adapter: HTTPAdapter | None = None) -> tuple[Get, Get]:
    plain, pinned = requests.Session(), PinnedSession(store, context=site.context())
    plain.mount("https://", adapter or OneContext(site.context()))
    plain.trust_env = pinned.trust_env = False
    plain.verify = str(site.roots)
    return lambda: plain.get(site.url).status_code, lambda: pinned.get(site.url).status_code


def by_requests_as_it_comes(site: Site, store: PinStore) -> tuple[Get, Get]:
    return by_requests(site, store, HTTPAdapter())


@pytest.mark.parametrize("library", [by_httpx, by_requests, by_requests_as_it_comes])
def test_a_thousand_requests_on_new_connections(
    site: Site, folder: Path, library: Callable[[Site, PinStore], tuple[Get, Get]]
) -> None:
    turns = Turns()
    with PinStore(folder / library.__name__) as store:
        gets = library(site, store)
        for _ in range(100):
            for pinned in turns.order():
                with turns.turn(pinned):
                    for _ in range(10):
                        assert gets[pinned]() == 200
        assert store.known_host("localhost") is not None
    tell_requests(library.__name__, turns)


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
    turns.tell_wall(f"requests {library}, wall time", 10, limit=1.03)
