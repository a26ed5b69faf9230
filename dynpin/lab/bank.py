"""The actors of the demo: a bank (Starlette under uvicorn), its shop (Flask, threaded) and their keys on disk."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Self

import uvicorn
from flask import Flask
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from werkzeug.serving import WSGIRequestHandler, make_server

from dynpin.lab.certificates import Authority, KeyPair
from dynpin.middleware import Policy, PublicKeyPinsMiddleware, PublicKeyPinsWSGIMiddleware
from dynpin.pins import Pin

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp

__all__ = ["Keys", "bank_app", "serve_asgi", "serve_wsgi", "shop_app"]


class Keys:
    """The key files of one site: what is deployed, and a public key whose private half is kept offline.

    Args:
        folder: where the files are written: ``fullchain.pem``, ``privkey.pem`` and ``backup.pem``.
        authority: who certifies the keys.
        host: the name on the certificates.
    """

    def __init__(self, folder: Path, authority: Authority, host: str) -> None:
        self.folder = folder
        self.host = host
        self._authority = authority
        folder.mkdir()
        self.chain, self.key, self.backup = (folder / name for name in ("fullchain.pem", "privkey.pem", "backup.pem"))
        self._made = 0
        self._next = self._make_key()
        self.rotate()

    @property
    def deployed(self) -> Pin:
        """The pin of the key that is served."""
        return Pin.from_file(self.chain)

    @property
    def offline(self) -> Pin:
        """The pin of the Backup Pin's key."""
        return Pin.from_file(self.backup)

    def rotate(self) -> None:
        """Deploy the backup key, and make a new one to stand in its place."""
        certificate = self._authority.issue(self.host, self._next)
        self.key.write_bytes(certificate.key.private_pem)
        self.chain.write_bytes(certificate.pem)
        self._next = self._make_key()
        self.backup.write_bytes(self._next.public_pem)

    def replace_all(self) -> None:
        """Deploy a key that nobody was ever told of, with a new backup."""
        self._next = self._make_key()
        self.rotate()

    def load(self, context: ssl.SSLContext) -> None:
        """Show the deployed key from the next connection on."""
        context.load_cert_chain(self.chain, self.key)

    def _make_key(self) -> KeyPair:
        self._made += 1
        return KeyPair(f"{self.host} key {self._made}", self.host)


class _Quiet(WSGIRequestHandler):
    """Serves without a line for each request: the story is told by who plays it."""

    def log(self, type: str, message: str, *args: object) -> None:  # noqa: A002 - werkzeug's own name
        """Say nothing."""


class Server:
    """A server in a thread of this process: its port, its TLS context, and the way to stop it."""

    def __init__(self, port: int, context: ssl.SSLContext | None, stop: Callable[[], None]) -> None:
        self.port = port
        self.context = context
        self._stop = stop

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop()


def bank_app(policy: Policy) -> ASGIApp:
    """A Starlette app with the ASGI middleware around it."""

    async def balance(request: Request) -> JSONResponse:
        return JSONResponse({"account": "DE02", "balance": "1,024.00"})

    return PublicKeyPinsMiddleware(Starlette(routes=[Route("/balance", balance)]), policy)


def shop_app(policy: Policy) -> Flask:
    """A Flask app with the WSGI middleware in it."""
    app = Flask("shop")
    app.wsgi_app = PublicKeyPinsWSGIMiddleware(app.wsgi_app, policy)  # type: ignore[method-assign] # Flask's own way

    @app.get("/basket")
    def basket() -> dict[str, list[str]]:
        return {"basket": ["a book on keys"]}

    return app


def serve_asgi(app: ASGIApp, keys: Keys | None) -> Server:
    """Serve an ASGI app by uvicorn on a free port of 127.0.0.1: over TLS, or in the clear without keys."""
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=0,
        log_level="critical",
        ssl_certfile=keys.chain if keys else None,
        ssl_keyfile=keys.key if keys else None,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.01)
        if not thread.is_alive():
            raise RuntimeError("uvicorn did not start")

    def stop() -> None:
        server.should_exit = True
        thread.join()

    port: int = server.servers[0].sockets[0].getsockname()[1]
    return Server(port, config.ssl, stop)


def serve_wsgi(app: Flask, keys: Keys) -> Server:
    """Serve a WSGI app over TLS by a threaded server on a free port of 127.0.0.1."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    keys.load(context)
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Quiet, ssl_context=context)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()

    def stop() -> None:
        server.shutdown()
        thread.join()
        server.server_close()

    return Server(server.server_port, context, stop)
