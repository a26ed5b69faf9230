"""A SOCKS5 server without a password (RFC 1928), which connects every name to 127.0.0.1."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Self

__all__ = ["SocksServer"]

_TIMEOUT = 30.0


class SocksServer:
    """It listens on `port`, and keeps the requested names in `asked`."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for connection in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in tuple(self._threads):
            thread.join(_TIMEOUT)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._begin(self._serve, client)

    def _begin(self, target: object, *args: socket.socket) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)  # type: ignore[arg-type] # a method
        self._threads.append(thread)
        thread.start()

    def _serve(self, client: socket.socket) -> None:
        client.settimeout(_TIMEOUT)
        with contextlib.suppress(OSError), client:
            self._open.append(client)
            client.recv(client.recv(2, socket.MSG_WAITALL)[1], socket.MSG_WAITALL)
            client.sendall(b"\x05\x00")
            length = client.recv(5, socket.MSG_WAITALL)[4]
            name, port = client.recv(length, socket.MSG_WAITALL), client.recv(2, socket.MSG_WAITALL)
            self.asked.append(name.decode())
            with socket.create_connection(("127.0.0.1", int.from_bytes(port)), timeout=_TIMEOUT) as site:
                self._open.append(site)
                client.sendall(b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x00")
                self._begin(_pass_on, site, client)
                _pass_on(client, site)


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
