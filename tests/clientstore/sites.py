"""The servers that clients meet: sites that redirect, speak HTTP/2 or WebSocket, and a proxy that tunnels."""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import threading
from typing import cast
from urllib.parse import unquote

import h2.config
import h2.connection
import h2.events
import trustme

from dynpin.lab.network import TLSServer

__all__ = ["HTTP2Site", "Proxy", "Site", "relay"]

_TIMEOUT = 30.0


class Site(TLSServer):
    """A :class:`TLSServer` with paths: ``/to/URL`` redirects to the quoted URL, ``/204`` has no body."""

    def _response(self, request: bytes) -> bytes:
        path = request.split(b" ")[1].decode()
        if path.startswith("/to/"):
            location = ("Location", unquote(path.removeprefix("/to/")))
            return self._head("302 Found", [location, ("Content-Length", "0"), *self.headers])
        if path == "/204":
            return self._head("204 No Content", self.headers)
        return super()._response(request)

    @staticmethod
    def _head(status: str, fields: list[tuple[str, str]]) -> bytes:
        lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in fields), "", ""]
        return "\r\n".join(lines).encode("latin-1")


class HTTP2Site(TLSServer):
    """A :class:`TLSServer` that speaks only HTTP/2."""

    def use(self, context: ssl.SSLContext) -> None:
        context.set_alpn_protocols(["h2"])
        super().use(context)

    def _converse(self, tls: ssl.SSLSocket) -> None:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        connection.initiate_connection()
        tls.sendall(connection.data_to_send())
        while data := tls.recv(65_536):
            with self._lock:
                self.received += data
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    assert event.stream_id is not None
                    fields = [(":status", "200"), *((name.lower(), value) for name, value in self.headers)]
                    connection.send_headers(event.stream_id, fields)
                    connection.send_data(event.stream_id, self.body, end_stream=True)
            tls.sendall(connection.data_to_send())


class Proxy:
    """An HTTP proxy on 127.0.0.1 that tunnels by CONNECT to any port there, and forwards a plain request.

    Args:
        certificate: speak TLS with this certificate to the proxy's clients.
        headers: header fields of the proxy's own answer to CONNECT, and of the response to a forwarded request.
    """

    def __init__(
        self, certificate: trustme.LeafCert | None = None, *, headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        self.headers = headers
        self.tunnels: list[str] = []
        self.requests = 0
        self._context: ssl.SSLContext | None = None
        if certificate is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            certificate.configure_cert(self._context)
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *exc_info: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in tuple(self._open):
            with contextlib.suppress(OSError):  # it has ended
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(_TIMEOUT)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}" if self._context is None else f"https://proxy.test:{self.port}"

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, raw: socket.socket) -> None:
        raw.settimeout(_TIMEOUT)
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            client = stack.enter_context(raw)
            if self._context is not None:
                client = stack.enter_context(self._context.wrap_socket(client, server_side=True))
            self._open.append(client)
            head = b""
            while b"\r\n\r\n" not in head:
                data = client.recv(4096)
                if not data:
                    return
                head += data
            self.requests += 1
            method, target = head.split(b" ")[:2]
            fields = "".join(f"{name}: {value}\r\n" for name, value in self.headers)
            if method != b"CONNECT":
                client.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{fields}\r\nok".encode())
                return
            self.tunnels.append(target.decode())
            port = int(target.rpartition(b":")[2])
            site = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT))
            client.sendall(f"HTTP/1.1 200 Connection established\r\n{fields}\r\n".encode())
            relay(client, site)


def relay(client: socket.socket, site: socket.socket) -> None:
    """Pass bytes in both directions until one side ends, in one thread: OpenSSL allows one thread for a connection."""
    other = {client: site, site: client}
    with selectors.DefaultSelector() as selector:
        for side in other:
            selector.register(side, selectors.EVENT_READ)
        while True:
            # Bytes that TLS has already decrypted do not make a socket readable.
            waiting: list[socket.socket] = [
                side for side in other if isinstance(side, ssl.SSLSocket) and side.pending()
            ]
            ready = waiting or [cast("socket.socket", key.fileobj) for key, _ in selector.select(_TIMEOUT)]
            for side in ready:
                data = side.recv(65_536)
                if not data:
                    return
                other[side].sendall(data)
            if not ready:
                return
