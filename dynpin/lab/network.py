"""The network of scenarios: names that resolve to loopback, and TLS servers that count the bytes they receive."""

from __future__ import annotations

import contextlib
import io
import socket
import ssl
import threading
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import unquote
from wsgiref.handlers import SimpleHandler

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

    import trustme

    from dynpin.lab.certificates import Certificate

__all__ = ["TLSServer", "loopback_names", "names_led"]

# Long, since a busy machine is no error. A thread that is told to end does so at once.
_TIMEOUT = 30.0


@contextlib.contextmanager
def loopback_names(routes: Mapping[str, int] | None = None) -> Generator[None]:
    """Resolve every name under ``.test`` (RFC 6761) to 127.0.0.1 in this process, and change no other name.

    Args:
        routes: the port that answers a name, whatever port was asked for. It is read at each resolution, so a changed
            entry acts like a network that now leads elsewhere, such as a hostile hotspot. It works for all code that
            uses the port in the resolver's answer: sockets, http.client, urllib3, requests, httpx, asyncio.
    """
    ports: Mapping[str, int] = {} if routes is None else routes

    def lead(name: str, port: Any) -> tuple[str, Any]:  # noqa: ANN401 - a number or a service, as it came
        known = name.rstrip(".")
        return ("127.0.0.1", ports.get(known, port)) if known.endswith(".test") else (name, port)

    with names_led(lead):
        yield


@contextlib.contextmanager
def names_led(lead: Callable[[str, Any], tuple[str, Any]]) -> Generator[None]:
    """For each name and port that this process resolves, look up those that `lead` returns instead."""
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as socket has them
        if host is not None:
            host, port = lead(host.decode("ascii") if isinstance(host, bytes) else host, port)
        return real(host, port, *args, **kwargs)

    socket.getaddrinfo = getaddrinfo
    try:
        yield
    finally:
        socket.getaddrinfo = real


class TLSServer:
    """A threaded TLS server on 127.0.0.1 that answers HTTP/1.1 and counts each byte that it can read.

    Args:
        certificate: its chain and key; :meth:`show` changes them while it runs.
        port: the port to listen on; 0 for a free port.
        headers: the header fields of every response, in order; a name may occur several times.
        body: the body of every response.
        app: a WSGI app that answers instead of `headers` and `body`; it may be changed while the server runs too.
        client_ca: the authority (PEM) for client certificates; None to ask for none.
        maximum_version: the newest TLS version that it speaks.

    Attributes:
        port: the port that it listens on.
        connections: how many TCP connections it has accepted.
        handshakes: how many of them finished TLS.
        resumptions: how many of these resumed a session.
        context: its TLS context.
        received: all bytes of application data that it received, in order.
    """

    def __init__(
        self,
        certificate: Certificate | trustme.LeafCert,
        *,
        port: int = 0,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"hello",
        app: WSGIApplication | None = None,
        client_ca: bytes | None = None,
        maximum_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    ) -> None:
        self.headers = list(headers)
        self.body = body
        self.app = app
        self.client_ca = client_ca
        self.maximum_version = maximum_version
        self.connections = 0
        self.handshakes = 0
        self.resumptions = 0
        self.received = b""
        self._lock = threading.Lock()
        self._open: set[ssl.SSLSocket] = set()
        self._closed = False
        self._threads: list[threading.Thread] = []
        self.show(certificate)
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        self._start(self._accept)

    @property
    def application_bytes(self) -> int:
        """How many bytes of requests this server has received."""
        return len(self.received)

    def url(self, host: str, path: str = "/") -> str:
        """The https URL of this server with a name."""
        return f"https://{host}:{self.port}{path}"

    def show(self, certificate: Certificate | trustme.LeafCert) -> None:
        """Show this chain and key from the next connection on."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.maximum_version = self.maximum_version
        certificate.configure_cert(context)  # pyright: ignore[reportUnknownMemberType] # trustme: pyOpenSSL's too
        if self.client_ca is not None:
            context.load_verify_locations(cadata=self.client_ca.decode("ascii"))
            context.verify_mode = ssl.CERT_REQUIRED
        self.use(context)

    def use(self, context: ssl.SSLContext) -> None:
        """Use this context from the next connection on."""
        self.context = context

    def wait_idle(self) -> None:
        """Wait until every accepted connection has ended, so that the count is final."""
        for thread in self._threads[1:]:
            thread.join(_TIMEOUT)

    def close(self) -> None:
        """Stop listening and end every connection."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._closed = True
        self.end_connections()
        for thread in self._threads:
            thread.join(_TIMEOUT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def end_connections(self) -> None:
        """End all open connections, and continue to listen."""
        with self._lock:
            for connection in self._open:
                # shutdown() of a TLS socket would first remove the TLS object, which the reading thread still uses.
                with contextlib.suppress(OSError):  # the other side has closed it
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._start(self._serve, connection, self.context)

    def _serve(self, connection: socket.socket, context: ssl.SSLContext) -> None:
        # A client may end the connection to refuse the certificate: that is no error here.
        with contextlib.suppress(OSError), connection:
            connection.settimeout(_TIMEOUT)
            # Data after the session tickets would wait for the client's acknowledgement: 40 ms for each connection.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False) as tls:
                self._attend(tls)

    def _attend(self, tls: ssl.SSLSocket) -> None:
        # From here on it can be ended, even during its handshake.
        with self._lock:
            self._open.add(tls)
            closed = self._closed
        try:
            if closed:
                return
            tls.do_handshake()
            with self._lock:
                self.handshakes += 1
                self.resumptions += bool(tls.session_reused)
            self._converse(tls)
        finally:
            with self._lock:
                self._open.discard(tls)

    def _converse(self, tls: ssl.SSLSocket) -> None:
        pending = bytearray()
        while data := tls.recv(65_536):
            with self._lock:
                self.received += data
            pending.extend(data)
            while (end := pending.find(b"\r\n\r\n")) >= 0:
                head = bytes(pending[:end])
                length = end + 4 + _content_length(head)
                if len(pending) < length:
                    break  # the rest of the body is still coming; closing now would destroy the answer
                del pending[:length]
                tls.sendall(self._response(head))
                if b"connection: close" in head.lower():
                    return

    def _response(self, request: bytes) -> bytes:
        if self.app is not None:
            return _run(self.app, request)
        fields = [("Content-Length", str(len(self.body))), ("Content-Type", "text/plain"), *self.headers]
        head = "HTTP/1.1 200 OK\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields) + "\r\n"
        return head.encode("latin-1") + (b"" if request.startswith(b"HEAD ") else self.body)


class _Handler(SimpleHandler):
    """The standard library's own handler for a WSGI app."""

    http_version = "1.1"


def _run(app: WSGIApplication, request: bytes) -> bytes:
    """The answer of a WSGI app to a request without a body."""
    method, _, rest = request.partition(b"\r\n")[0].decode("latin-1").partition(" ")
    path, _, query = rest.partition(" ")[0].partition("?")
    environ = {
        "HTTPS": "on",
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote(path, "latin-1"),  # PEP 3333
        "QUERY_STRING": query,
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "443",
        "SERVER_PROTOCOL": "HTTP/1.1",
    }
    response = io.BytesIO()
    handler = _Handler(io.BytesIO(), response, io.StringIO(), environ)
    handler.os_environ = {}  # on a web server an app sees its request, not the environment of this process
    handler.run(app)
    head, end, body = response.getvalue().partition(b"\r\n\r\n")
    return head + end + (b"" if method == "HEAD" else body)


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return int(value)
    return 0
