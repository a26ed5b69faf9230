"""What the pin store costs: opening, look-ups, notings, handshakes, requests.

Every figure stands beside another of the same run, so that a busy machine slows both alike:
``make bench ARGS=tests/benchmarks/bench_store.py``. docs/performance.md has the table.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import requests
import trustme

from dynpin import KnownPinnedHost, Pin
from dynpin.clientstore import PinStore, enforce
from dynpin.clientstore.requests import PinnedSession
from dynpin.hosts import canonical_host, superdomains
from dynpin.lab.network import TLSServer

from ..clientstore.world import leaf_pin
from .crowd import fill_store, fill_wget2, host

SIZES = (1_000, 100_000, 1_000_000)
WGET2 = shutil.which("wget2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench")


def tell(what: str, **figures: object) -> None:
    print(f"\n{what:<44}" + "  ".join(f"{name} {value}" for name, value in figures.items()))


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
    milliseconds: dict[int, float] = {}
    for size in SIZES:
        path = folder / f"store-{size}"
        fill_store(path, size)
        runs: list[list[float]] = []
        for number in range(15):
            command = [sys.executable, "-c", OPEN, str(path), host(number * size // 15)]
            runs.append(json.loads(subprocess.run(command, capture_output=True, check=True).stdout))
        milliseconds[size] = statistics.median(run[0] for run in runs)
        added = statistics.median(run[1] for run in runs)
        tell(f"open and first look-up, {size:,} hosts", ms=f"{milliseconds[size]:.2f}", MB=f"{added:.1f}")
        assert added <= 10
    assert milliseconds[1_000_000] < 3 * milliseconds[1_000]


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


# -- look-ups ---------------------------------------------------------------------------------------------------------


def test_a_warm_look_up_beside_a_plain_dict(folder: Path) -> None:
    """The dict keeps the same entries and answers the same question: the host's own, or a superdomain's that covers."""
    with PinStore(folder / "lookup") as store:
        store.pin("api.bank.example", [Pin(bytes(32))], expires_at=time.time() + 1e6)
        table = {entry.host: entry for entry in store.hosts()}

        def plain(name: str) -> KnownPinnedHost | None:
            name, now = canonical_host(name), time.time()
            for candidate in (name, *superdomains(name)):
                entry = table.get(candidate)
                if entry is not None and not entry.is_expired(now) and (candidate == name or entry.include_subdomains):
                    return entry
            return None

        for what, name in (("a pinned host", "api.bank.example"), ("an unknown host", "www.unknown.example")):
            by_store, by_dict = fastest(
                {"store": functools.partial(store.known_host, name), "dict": functools.partial(plain, name)}, 20_000
            )
            ratio = f"{by_store / by_dict:.1f}"
            tell(f"warm look-up of {what}", us=f"{by_store:.1f}", dict_us=f"{by_dict:.1f}", ratio=ratio)
            assert by_store <= 5 * by_dict


def fastest(variants: dict[str, Callable[[], object]], calls: int, rounds: int = 15) -> list[float]:
    """Microseconds a call of each variant, the best of rounds in which they take turns."""
    best = dict.fromkeys(variants, float("inf"))
    for _ in range(rounds):
        for name, act in variants.items():
            begun = time.perf_counter()
            for _ in range(calls):
                act()
            best[name] = min(best[name], (time.perf_counter() - begun) / calls * 1e6)
    return list(best.values())


# -- notings ----------------------------------------------------------------------------------------------------------

NOTE = """
import os, sys
from dynpin import Pin
from dynpin.clientstore import PinStore
from dynpin.clientstore.store.table import registrable_domain
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
    children = [
        subprocess.Popen(
            [sys.executable, "-c", NOTE, kind, str(path), str(worker), str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
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
    for child in children:
        assert child.stdout is not None
        child.stdout.close()
    return workers * count / (time.perf_counter() - begun)


@pytest.mark.parametrize("workers", [1, 8])
def test_notings_beside_append_and_fdatasync(folder: Path, workers: int) -> None:
    ratios: list[float] = []
    rates: list[tuple[float, float]] = []
    count = 800 // workers
    for turn in range(7):
        store, plain = folder / f"notes-{workers}-{turn}", folder / f"appended-{workers}-{turn}"
        PinStore(store).close()
        # One process appends, however many note: that is what the disk can do for somebody who shares no syncs.
        notings, appends = per_second("note", store, workers, count), per_second("append", plain, 1, 400)
        rates.append((notings, appends))
        ratios.append(notings / appends)
        with PinStore(store) as kept:
            assert len(kept) == workers * count  # none is lost
    tell(
        f"durable notings a second, {workers} processes",
        notings=f"{statistics.median(rate[0] for rate in rates):.0f}",
        appends=f"{statistics.median(rate[1] for rate in rates):.0f}",
        ratio=f"{statistics.median(ratios):.2f}",
    )


# -- handshakes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chain", "pinned_key"), [("warm", "issuer"), ("never seen", "issuer"), ("never seen", "leaf"), ("warm", "none")]
)
def test_a_pinned_handshake_beside_a_plain_one(folder: Path, chain: str, pinned_key: str) -> None:
    """TLS 1.3 with a chain of three, both ends in this process, by processor time: nothing but the work is counted."""
    authority = trustme.CA()
    issuer = authority.create_child_ca()
    names = ["bank.example"] if chain == "warm" else [f"bank{number}.example" for number in range(150)]
    leaves = [issuer.issue_cert(name) for name in names]
    servers = [ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) for _ in leaves]
    for leaf, server in zip(leaves, servers, strict=True):
        leaf.configure_cert(server)
    from dynpin.clientstore import enforcement

    with PinStore(folder / f"handshakes-{len(leaves)}-{pinned_key}") as store:
        for name, leaf in zip(names, leaves, strict=True):
            if pinned_key != "none":
                store.pin(
                    name, [leaf_pin(leaf) if pinned_key == "leaf" else Pin.from_certificate(issuer.cert_pem.bytes())]
                )
        times: dict[str, list[float]] = {"plain": [], "pinned": []}
        contexts: dict[str, ssl.SSLContext] = {}
        for turn in range(40):
            # New contexts, and no memory of a leaf: what was seen in the last round is seen anew.
            if turn == 0 or chain == "never seen":
                enforcement._certificate_pins.cache_clear()
                contexts = {name: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) for name in times}
                for context in contexts.values():
                    authority.configure_trust(context)
                enforce(contexts["pinned"], store)
            for name in sorted(contexts, reverse=bool(turn % 2)):
                begun = time.process_time()
                for index in range(150):
                    handshake(contexts[name], servers[index % len(servers)], names[index % len(servers)])
                times[name].append((time.process_time() - begun) / 150 * 1e6)
    tell_ratio(f"handshake, {chain}, key of {pinned_key} pinned", times["plain"][1:], times["pinned"][1:])


def tell_ratio(what: str, plain: list[float], pinned: list[float]) -> None:
    """The median of the ratios of what was taken in turn, and between which quarters it lies."""
    low, middle, high = statistics.quantiles((b / a for a, b in zip(plain, pinned, strict=True)), n=4)
    tell(
        what,
        plain_us=f"{statistics.median(plain):.0f}",
        pinned_us=f"{statistics.median(pinned):.0f}",
        ratio=f"{middle:.3f} ({low:.3f} to {high:.3f})",
    )


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
answer = b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\nConnection: close\\r\\n\\r\\nok"
while True:
    connection, _ = listener.accept()
    try:
        with context.wrap_socket(connection, server_side=True) as tls:
            tls.recv(65536)
            tls.sendall(answer)
    except OSError:
        pass
"""


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[tuple[str, ssl.SSLContext, ssl.SSLContext, PinStore]]:
    """A server in a process of its own; its URL, a plain and an enforced context, and the store."""
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    pem = folder / "site.pem"
    pem.write_bytes(certificate.private_key_and_cert_chain_pem.bytes())
    (folder / "site-roots.pem").write_bytes(authority.cert_pem.bytes())
    server = subprocess.Popen([sys.executable, "-c", SERVE, str(pem)], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    port = int(server.stdout.readline())
    contexts = [ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) for _ in range(2)]
    for context in contexts:
        authority.configure_trust(context)
    with PinStore(folder / "requests") as store:
        store.pin("localhost", [leaf_pin(certificate)])
        enforce(contexts[1], store)
        yield f"https://localhost:{port}/", contexts[0], contexts[1], store
    server.kill()
    server.wait()
    server.stdout.close()


def test_a_pinned_handshake_over_a_socket(site: tuple[str, ssl.SSLContext, ssl.SSLContext, PinStore]) -> None:
    """TLS 1.3 to a server in another process, warm, in turn: from connect to the end of the handshake."""
    url, *contexts, _ = site
    port = int(url.rstrip("/").rpartition(":")[2])
    wall: tuple[list[float], list[float]] = ([], [])
    processor: tuple[list[float], list[float]] = ([], [])
    for turn in range(2_000):
        for index in (0, 1) if turn % 2 else (1, 0):
            begun, worked = time.perf_counter(), time.process_time()
            with (
                socket.create_connection(("127.0.0.1", port)) as raw,
                contexts[index].wrap_socket(raw, server_hostname="localhost"),
            ):
                wall[index].append((time.perf_counter() - begun) * 1e6)
                processor[index].append((time.process_time() - worked) * 1e6)
    tell_ratio("handshake over loopback, wall time", *wall)
    tell_ratio("the same, processor time of the client", *processor)


@pytest.mark.parametrize("library", ["httpx", "requests"])
def test_a_thousand_requests_on_new_connections(
    site: tuple[str, ssl.SSLContext, ssl.SSLContext, PinStore], folder: Path, library: str
) -> None:
    url, plain, pinned, store = site
    variants: dict[str, Callable[[], int]]
    if library == "httpx":
        clients = [httpx.Client(verify=context, trust_env=False) for context in (plain, pinned)]
        variants = {
            name: lambda client=client: client.get(url).status_code  # type: ignore[misc] # a closure
            for name, client in zip(("without", "with"), clients, strict=True)
        }
    else:
        session = requests.Session()
        session.verify = str(folder / "site-roots.pem")  # without it, every connection loads certifi's roots
        sessions = {"without": session, "with": PinnedSession(store, context=pinned)}
        for one in sessions.values():
            one.trust_env = False
        variants = {
            name: lambda one=one: one.get(url).status_code  # type: ignore[misc] # a closure
            for name, one in sessions.items()
        }
    seconds = dict.fromkeys(variants, 0.0)
    for _ in range(1_000):
        for name, get in variants.items():
            begun = time.perf_counter()
            assert get() == 200
            seconds[name] += time.perf_counter() - begun
    tell(
        f"1,000 requests through {library}, new connections",
        without_s=f"{seconds['without']:.2f}",
        with_s=f"{seconds['with']:.2f}",
        ratio=f"{seconds['with'] / seconds['without']:.3f}",
    )
