"""A report-uri that keeps the reports that it gets."""

from __future__ import annotations

import json
import queue
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Self

from dynpin.lab.loopback import LoopbackServer


class Inbox:
    """A plain HTTP server on loopback; `status` and `headers` are those of every answer."""

    def __init__(self) -> None:
        self.status = 204
        self.headers: list[tuple[str, str]] = []
        self.on_post: Callable[[], object] = lambda: None
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self._arrived: queue.Queue[bytes] = queue.Queue()
        inbox = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                fields = {name.lower(): value for name, value in self.headers.items()}
                inbox.on_post()
                inbox.requests.append((self.path, fields, body))
                self.send_response(inbox.status)
                for name, value in inbox.headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()
                inbox._arrived.put(body)

            do_GET = do_POST

            def log_message(self, *args: object) -> None:
                pass

        self._server = LoopbackServer(Handler)
        self._server.__enter__()
        self.port: int = self._server.server_port

    def next_report(self) -> dict[str, object]:
        """The next report that arrives."""
        report: dict[str, object] = json.loads(self._arrived.get(timeout=120))
        return report

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.__exit__(*exc_info)
