"""A small HTTP server on loopback, which answers as the handler says that it is given."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import ssl

__all__ = ["LoopbackServer"]


class LoopbackServer(ThreadingHTTPServer):
    """A server of ``http.server`` that runs in a thread of its own; a context manager.

    Args:
        handler: makes the handler of a connection, as ``http.server`` has it.
        address: where it listens.
        port: where it listens; 0 takes a free port, which :attr:`server_port` has.
        context: what it serves TLS by; None serves plain HTTP.
    """

    daemon_threads = True

    def __init__(
        self,
        handler: Callable[..., BaseHTTPRequestHandler],
        *,
        address: str = "127.0.0.1",
        port: int = 0,
        context: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__((address, port), handler)
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as socketserver has them
        """Tell of an error of the handler, but not of a client that goes away, as one does that refuses the key."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)
