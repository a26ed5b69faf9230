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
from typing import Any, Literal, cast
from wsgiref.simple_server import ServerHandler, WSGIRequestHandler, WSGIServer

import flask
import pytest
import trustme
import uvicorn
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from uvicorn.server import ServerState

from dynpin import Pin
from dynpin.middleware import Policy, PublicKeyPinsMiddleware, PublicKeyPinsWSGIMiddleware

POLICY: dict[str, Any] = {"keys": Pin(b"k" * 32), "backups": Pin(b"b" * 32), "max_age": 2_592_000}
VALUE = str(Policy(**POLICY).header)
FIELD, TEXT_FIELD = (b"public-key-pins", VALUE.encode()), ("Public-Key-Pins", VALUE)

ROUNDS, CALLS = 60, 2000
# Requests of one turn, and turns of each variant.
BATCH, TURNS = 20, 400


# -- the variants ----------------------------------------------------------------------------------------------------


def starlette(path: str) -> Starlette:
    return Starlette(routes=[Route(path, _hello)])


async def _hello(request: object) -> PlainTextResponse:
    return PlainTextResponse("hello")


def by_hand(app: Any) -> Any:
    """The least that adds a fixed header: no check of the scheme, none of what the app has set."""

    async def wrapped(scope: Any, receive: Any, send: Any) -> None:
        async def send_with_field(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append(FIELD)
            await send(message)

        await app(scope, receive, send_with_field)

    return wrapped


def base_http_middleware(app: Any) -> Any:
    async def dispatch(request: Any, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers["public-key-pins"] = VALUE
        return response

    return BaseHTTPMiddleware(app, dispatch=dispatch)


def flask_app(path: str) -> flask.Flask:
    app = flask.Flask("bench")
    app.add_url_rule(path, "hello", lambda: "hello")
    return app


def wsgi_by_hand(app: Any) -> Any:
    def wrapped(environ: Any, start_response: Any) -> Any:
        def start_with_field(status: str, headers: Any, exc_info: Any = None) -> Any:
            headers.append(TEXT_FIELD)
            return start_response(status, headers, exc_info)

        return app(environ, start_with_field)

    return wrapped


def after_request(app: flask.Flask) -> flask.Flask:
    def add(response: flask.Response) -> flask.Response:
        response.headers["Public-Key-Pins"] = VALUE
        return response

    app.after_request(add)
    return app


ASGI: dict[str, Callable[[str], Any]] = {
    "the app alone": starlette,
    "the app alone, again": starlette,
    "PublicKeyPinsMiddleware": lambda path: PublicKeyPinsMiddleware(starlette(path), **POLICY),
    "a wrapper by hand": lambda path: by_hand(starlette(path)),
    "BaseHTTPMiddleware": lambda path: base_http_middleware(starlette(path)),
}
WSGI: dict[str, Callable[[str], Any]] = {
    "the app alone": flask_app,
    "the app alone, again": flask_app,
    "PublicKeyPinsWSGIMiddleware": lambda path: PublicKeyPinsWSGIMiddleware(flask_app(path), **POLICY),
    "a wrapper by hand": lambda path: wsgi_by_hand(flask_app(path)),
    "after_request": lambda path: after_request(flask_app(path)),
}


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
    command += ["-m", __spec__.name, "requests", name, str(requests)]
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2], env=environment
    )
    return int(done.stderr.rpartition("Collected : ")[2].split()[0])


class Sink(asyncio.Transport):
    """A connection over TLS, as uvicorn sees it, on which everything that is written is lost."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"sslcontext": True, "peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 1)}.get(name, default)

    def write(self, data: object) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def set_protocol(self, protocol: object) -> None:
        pass

    def close(self) -> None:
        pass


async def make_requests(name: str, requests: int) -> None:
    config = uvicorn.Config(ASGI[name]("/"), access_log=False, log_level="warning", lifespan="off", http="h11")
    config.load()
    # Any: a protocol class of uvicorn, by its setting.
    protocol: Any = config.http_protocol_class(config=config, server_state=ServerState(), app_state={})  # type: ignore[call-arg]
    protocol.connection_made(Sink())
    for _ in range(requests):
        protocol.data_received(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        while protocol.cycle is None or not protocol.cycle.response_complete:
            await asyncio.sleep(0)


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
    command = [sys.executable, "-m", __spec__.name, kind, str(certificate)]
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


SPENT = "/spent"


async def tell_spent(scope: Any, receive: Any, send: Any) -> None:
    body = b"%dns" % time.process_time_ns()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def wsgi_tell_spent(environ: Any, start_response: Any) -> list[bytes]:
    body = b"%dns" % time.process_time_ns()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def serve_asgi(certificate: str, http: Literal["h11", "httptools"] = "h11") -> None:
    apps = {f"/{number}": make(f"/{number}") for number, make in enumerate(ASGI.values())}
    apps[SPENT] = tell_spent

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await apps[scope["path"]](scope, receive, send)

    config = uvicorn.Config(
        app, port=0, access_log=False, log_level="warning", ssl_certfile=certificate, lifespan="off", http=http
    )
    listener = config.bind_socket()
    listener.listen()
    print(listener.getsockname()[1], flush=True)
    uvicorn.Server(config).run(sockets=[listener])


def serve_wsgi(certificate: str) -> None:
    apps = {f"/{number}": make(f"/{number}") for number, make in enumerate(WSGI.values())}
    apps[SPENT] = wsgi_tell_spent
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with WSGIServer(("127.0.0.1", 0), _Kept) as server:
        server.set_app(lambda environ, start_response: apps[environ["PATH_INFO"]](environ, start_response))
        server.socket = context.wrap_socket(server.socket, server_side=True)
        print(server.server_port, flush=True)
        server.serve_forever()


class _Kept(WSGIRequestHandler):
    """The standard library's handler, made to keep its connection: otherwise the handshakes are all one measures."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def handle(self) -> None:
        while True:
            self.raw_requestline = self.rfile.readline(65_537)
            if not self.raw_requestline or not self.parse_request():
                return
            environ = self.get_environ() | {"HTTPS": "on"}
            # Any: the stubs do not know how the standard library itself puts these together.
            server: Any = self.server
            handler: Any = ServerHandler(cast("Any", self.rfile), cast("Any", self.wfile), sys.stderr, environ)
            handler.http_version = "1.1"
            handler.request_handler = self
            handler.run(server.get_app())

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass


if __name__ == "__main__":
    if sys.argv[1] == "requests":
        asyncio.run(make_requests(sys.argv[2], int(sys.argv[3])))
    elif sys.argv[1] == "WSGI":
        serve_wsgi(sys.argv[2])
    else:
        serve_asgi(sys.argv[2], "httptools" if sys.argv[1].endswith("httptools") else "h11")
