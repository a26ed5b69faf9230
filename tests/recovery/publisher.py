"""A web server for the published files on 127.0.0.1, which can misbehave."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Self

from dynpin.lab.loopback import LoopbackServer


class Publisher:
    """Serves a folder, over TLS with a context. `misbehave` may answer a request by itself, and then returns True."""

    def __init__(self, folder: Path, context: ssl.SSLContext | None = None) -> None:
        self.folder = folder
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.misbehave: Callable[[BaseHTTPRequestHandler], bool] | None = None
        self.stop = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests.append((self.path, dict(self.headers)))
                if outer.misbehave is not None and outer.misbehave(self):
                    return
                file = outer.folder / self.path.lstrip("/")
                if not file.is_file():
                    self.send_error(404)
                    return
                data = file.read_bytes()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: object) -> None:
                pass

        self._server = LoopbackServer(Handler, context=context)
        self._scheme = "http" if context is None else "https"

    @property
    def uri(self) -> str:
        name = "127.0.0.1" if self._scheme == "http" else "localhost"
        return f"{self._scheme}://{name}:{self._server.server_port}"

    def paths(self) -> list[str]:
        return [path for path, _ in self.requests]

    def __enter__(self) -> Self:
        self._server.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop.set()
        self._server.__exit__(*exc_info)
