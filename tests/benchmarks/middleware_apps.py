"""The apps that bench_middleware.py compares, and the servers that run them, each as a process of its own."""

from __future__ import annotations

import asyncio
import ssl
import sys
import time
from collections.abc import Callable
from typing import Any, Literal, cast
from wsgiref.simple_server import ServerHandler, WSGIRequestHandler, WSGIServer

import flask
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

SPENT = "/spent"


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


# -- as processes of their own ----------------------------------------------------------------------------------------


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
