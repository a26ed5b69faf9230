"""What the middleware costs, beside a bare app, a wrapper written by hand and the framework's own way.

Every figure is taken in one run, the variants in turn, so that a busy machine slows them all alike:
``make bench ARGS=tests/benchmarks/bench_middleware.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from dynpin.middleware import PublicKeyPinsMiddleware, PublicKeyPinsWSGIMiddleware

from . import middleware_apps
from .middleware_apps import ASGI, POLICY, SPENT, WSGI, by_hand, wsgi_by_hand

ROUNDS, CALLS = 60, 2000
# Requests of one turn, and turns of each variant.
BATCH, TURNS = 20, 400


# -- in process: what one call adds ----------------------------------------------------------------------------------


async def _bare_asgi(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5"), (b"x", b"1")]})
    await send({"type": "http.response.body", "body": b"hello"})


def _bare_wsgi(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Length", "5"), ("X", "1")])
    return [b"hello"]


def asgi_calls(app: Any) -> Callable[[], None]:
    scope = {"type": "http", "scheme": "https", "method": "GET", "path": "/", "headers": []}

    async def receive() -> dict[str, object]:
        return {"type": "http.request"}

    async def send(message: object) -> None:
        pass

    async def calls() -> None:
        for _ in range(CALLS):
            await app(scope, receive, send)

    return lambda: asyncio.run(calls())


def wsgi_calls(app: Any) -> Callable[[], None]:
    environ = {"wsgi.url_scheme": "https"}

    def start_response(status: str, headers: object, exc_info: object = None) -> None:
        pass

    def calls() -> None:
        for _ in range(CALLS):
            app(environ, start_response)

    return calls


def nanoseconds(variants: dict[str, Callable[[], None]]) -> dict[str, float]:
    """The fastest of many rounds, the variants in turn, per call."""
    best = dict.fromkeys(variants, float("inf"))
    for _ in range(ROUNDS):
        for name, calls in variants.items():
            start = time.perf_counter_ns()
            calls()
            best[name] = min(best[name], (time.perf_counter_ns() - start) / CALLS)
    return best


def test_nanoseconds_per_call() -> None:
    for kind, variants in (
        (
            "ASGI",
            {
                "an app that only sends": asgi_calls(_bare_asgi),
                "PublicKeyPinsMiddleware": asgi_calls(PublicKeyPinsMiddleware(_bare_asgi, **POLICY)),
                "a wrapper by hand": asgi_calls(by_hand(_bare_asgi)),
            },
        ),
        (
            "WSGI",
            {
                "an app that only sends": wsgi_calls(_bare_wsgi),
                "PublicKeyPinsWSGIMiddleware": wsgi_calls(PublicKeyPinsWSGIMiddleware(_bare_wsgi, **POLICY)),
                "a wrapper by hand": wsgi_calls(wsgi_by_hand(_bare_wsgi)),
            },
        ),
    ):
        found = nanoseconds(variants)
        bare = next(iter(found.values()))
        print(f"\n{kind}, one call in process: nanoseconds that are added to {bare:.0f}")
        for name, cost in list(found.items())[1:]:
            print(f"  {name:32} {cost - bare:8.0f}")


# -- by instructions: the app and uvicorn's own protocol, without TLS and without noise ------------------------------


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed: apt-get install valgrind")
def test_instructions_per_request() -> None:
    # A minute for each, for what no other work on the machine can change.
    counts = {name: instructions(name) for name in ("the app alone", "PublicKeyPinsMiddleware", "a wrapper by hand")}
    bare, *_ = counts.values()
    print(f"\nASGI on uvicorn's h11 protocol, without TLS: instructions that are added to {bare}")
    for name, count in list(counts.items())[1:]:
        print(f"  {name:32} {count - bare:8}   {bare / count:.3f} of the app")


def instructions(name: str) -> int:
    """The instructions of one request: what a thousand more make."""
    fewer, more = (counted(name, requests) for requests in (100, 1100))
    return (more - fewer) // 1000


def counted(name: str, requests: int) -> int:
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", sys.executable]
    command += ["-m", middleware_apps.__name__, "requests", name, str(requests)]
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2], env=environment
    )
    return int(done.stderr.rpartition("Collected : ")[2].split()[0])


# -- on real servers, over TLS ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def connection(kind: str, folder: Path) -> Iterator[ssl.SSLSocket]:
    """One connection to one server that has every variant, each at a path of its own.

    Servers of their own would differ by a percent or two before the first request.
    """
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    certificate = folder / "server.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(certificate)
    command = [sys.executable, "-m", middleware_apps.__name__, kind, str(certificate)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as server:
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline())
            with context.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="127.0.0.1") as tls:
                yield tls
        finally:
            server.terminate()


def ask(connection: ssl.SSLSocket, path: str) -> bytes:
    """The response to one request."""
    connection.sendall(b"GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % path.encode())
    response = b""
    while not response.endswith((b"hello", b"ns")):
        received = connection.recv(65_536)
        if not received:
            raise ConnectionError(f"the server has gone: {response!r}")
        response += received
    return response


def processor_time(connection: ssl.SSLSocket) -> int:
    """The nanoseconds for which the server's process has run until now."""
    return int(ask(connection, SPENT).rpartition(b"\r\n\r\n")[2].removesuffix(b"ns"))


@pytest.mark.parametrize(
    ("kind", "variants"),
    [("ASGI", ASGI), ("ASGI with httptools", ASGI), ("WSGI", WSGI)],
    ids=["ASGI", "ASGI with httptools", "WSGI"],
)
def test_requests_per_second(kind: str, variants: dict[str, Any], tmp_path: Path) -> None:
    """By the processor time of the server, in which neither the client beside it nor other work counts.

    The app alone is measured twice: what lies between the two is what the measurement cannot tell apart.
    """
    if kind == "ASGI with httptools":
        pytest.importorskip("httptools", reason="pip install httptools")
    spent: dict[str, list[float]] = {name: [] for name in variants}
    paths = {name: f"/{number}" for number, name in enumerate(variants)}
    with connection(kind, tmp_path) as tls:
        for name, path in paths.items():
            assert (b"public-key-pins" in ask(tls, path).lower()) == (not name.startswith("the app alone"))
        for _ in range(TURNS):
            # In a random order, so that none always follows the same one.
            for name in random.sample(list(paths), len(paths)):
                before = processor_time(tls)
                for _ in range(BATCH):
                    ask(tls, paths[name])
                spent[name].append((processor_time(tls) - before) / BATCH)
    middle = {name: statistics.median(times) for name, times in spent.items()}
    bare, _, mine, by_hand, theirs = middle.values()
    print(f"\n{kind}, over TLS on one connection: requests in a second of the server's processor time")
    for name, time_taken in middle.items():
        print(f"  {name:32} {1e9 / time_taken:8.0f}   {bare / time_taken:.3f} of the app")
    print(f"  the middleware has {by_hand / mine:.3f} of the rate of the wrapper by hand,")
    print(f"  and {theirs / mine:.3f} times that of {list(variants)[-1]}")
