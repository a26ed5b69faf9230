"""https requests to one node of a site: its fields and its chain, or why there was no answer.

A balancer or the DNS hides nodes from clients, and each node may have another configuration. So each node is requested
by its own address, with the site's name in SNI, in the check of the certificate and in Host.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from dynpin._version import __version__
from dynpin.clientstore.enforcement import unverified_chain, verified_chain
from dynpin.errors import without_codes
from dynpin.middleware.policy import Inventory, Node

__all__ = [
    "NodeLook",
    "addresses_of",
    "exchange",
    "look_at_node",
    "look_at_paths",
    "look_over_http",
    "nodes_of",
    "why_silent",
]

MAX_ADDRESSES = 16
MAX_BODY = 1 << 20
# OpenSSL's X509_V_ERR codes for a chain that does not end in a trusted root.
_NO_ROOT = (18, 19, 20, 21)

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class NodeLook:
    """The answer of one node to one request.

    Attributes:
        address: the address or the name of the node.
        port: its TCP port.
        path: the requested path.
        scheme: ``"https"`` or ``"http"``.
        status: of the answer; None if there was none.
        headers: every field of the answer in order, repeated ones too.
        body: the first MiB of it.
        served: the certificates as the server sent them, DER, leaf first.
        validated: the chain that OpenSSL built and verified, DER, leaf first; empty if it did not verify.
        failure: why clients get no answer here, in words; None if all is well. A chain that does not verify is such a
            failure. `status`, `headers` and `served` are then what a client without checks would get.
    """

    address: str
    port: int
    path: str = "/"
    scheme: str = "https"
    status: int | None = None
    headers: Headers = ()
    body: bytes = b""
    served: tuple[bytes, ...] = ()
    validated: tuple[bytes, ...] = ()
    failure: str | None = None

    @property
    def node(self) -> Node:
        """The address and port of the node."""
        return Node(self.address, self.port)

    @property
    def is_verified(self) -> bool:
        """Whether the answer came over TLS with a chain that verified."""
        return self.scheme == "https" and self.status is not None and self.failure is None

    def values(self, name: str) -> tuple[str, ...]:
        """All values of this field, in order; the name may be in any case."""
        return tuple(value for each, value in self.headers if each.lower() == name.lower())


def addresses_of(host: str, port: int) -> tuple[str, ...]:
    """All addresses of a host in the DNS, at most sixteen.

    Raises:
        OSError: if the name does not resolve.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(each[4][0]) for each in found))[:MAX_ADDRESSES]


def nodes_of(inventory: Inventory | None, host: str, port: int) -> tuple[Node, ...]:
    """The nodes of a site: all addresses in the DNS, then the nodes in its inventory.

    Raises:
        OSError: if the name does not resolve.
    """
    named = () if inventory is None else inventory.nodes
    return tuple(dict.fromkeys([*(Node(each, port) for each in addresses_of(host, port)), *map(Node.parse, named)]))


def look_at_node(
    host: str, port: int, address: str, context: ssl.SSLContext, *, path: str = "/", timeout: float = 10.0
) -> NodeLook:
    """Request one path from one node.

    Args:
        host: the site's name, which the certificate must be for.
        port: the TCP port of the node.
        address: the address of the node.
        context: verifies the chain.
        path: path and query as in the request line.
        timeout: the most seconds for the connection, and for the answer.
    """
    return look_at_paths(host, port, address, context, (path,), timeout=timeout)[0]


def look_at_paths(
    host: str, port: int, address: str, context: ssl.SSLContext, paths: Sequence[str], *, timeout: float = 10.0
) -> tuple[NodeLook, ...]:
    """Request several paths from one node, over one connection if the server keeps it open.

    After a failure the node is not asked again: the last look has the failure.
    """
    looks: list[NodeLook] = []
    node = _Node(host, port, address, context, timeout)
    try:
        for path in paths:
            looks.append(node.ask(path))
            if looks[-1].status is None:
                break
    finally:
        node.close()
    return tuple(looks)


def look_over_http(host: str, port: int, address: str, *, path: str = "/", timeout: float = 10.0) -> NodeLook:
    """Request one path from one node over plain http, where no pinning field is allowed (RFC 7469 §2.2.2)."""
    try:
        with socket.create_connection((address, port), timeout) as plain:
            status, headers, body = exchange(plain, host, port, method="GET", path=path, timeout=timeout)
    except (OSError, http.client.HTTPException) as error:
        return NodeLook(address, port, path, "http", failure=why_silent(error))
    return NodeLook(address, port, path, "http", status, headers, body)


class _Node:
    """The connection to one node; it is made again if the server has closed it."""

    def __init__(self, host: str, port: int, address: str, context: ssl.SSLContext, timeout: float) -> None:
        self.host, self.port, self.address, self.timeout = host, port, address, timeout
        self.context = context
        self.distrust: str | None = None
        self.connection: http.client.HTTPConnection | None = None
        self.served: tuple[bytes, ...] = ()
        self.validated: tuple[bytes, ...] = ()

    def ask(self, path: str) -> NodeLook:
        is_reused = self.connection is not None
        try:
            try:
                status, headers, body = self._exchange(path)
            except (ConnectionError, http.client.RemoteDisconnected):
                if not is_reused:
                    raise
                # A server may close an idle connection: that is no failure of this request.
                self.close()
                status, headers, body = self._exchange(path)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            failure = self.distrust or why_silent(error)
            return NodeLook(self.address, self.port, path, served=self.served, failure=failure)
        return NodeLook(
            self.address,
            self.port,
            path,
            status=status,
            headers=headers,
            body=body,
            served=self.served,
            validated=self.validated,
            failure=self.distrust,
        )

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def _exchange(self, path: str) -> tuple[int, Headers, bytes]:
        if self.connection is None:
            self.connection = self._connect()
        answer, is_over = _exchange(self.connection, "GET", path, self.timeout)
        if is_over:
            self.close()
        return answer

    def _connect(self) -> http.client.HTTPConnection:
        try:
            tls = self._shake_hands()
        except ssl.SSLCertVerificationError as error:
            self.distrust = _distrust(error)
            # A client that checks would stop here. What such a site sends is still of interest.
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            self.context.check_hostname = False
            self.context.verify_mode = ssl.CERT_NONE
            tls = self._shake_hands()
        self.served = unverified_chain(tls)
        self.validated = () if self.distrust else verified_chain(tls)
        return _http(tls, self.host, self.port)

    def _shake_hands(self) -> ssl.SSLSocket:
        plain = socket.create_connection((self.address, self.port), self.timeout)
        try:
            return self.context.wrap_socket(plain, server_hostname=self.host)
        except BaseException:
            plain.close()
            raise


def exchange(
    connected: socket.socket, host: str, port: int, *, method: str, path: str, timeout: float
) -> tuple[int, Headers, bytes]:
    """One request and its answer over an existing connection: status, fields, the first MiB of the body.

    Raises:
        OSError: if the connection fails, or the answer is not there within `timeout` seconds.
        http.client.HTTPException: if the answer is not HTTP.
    """
    return _exchange(_http(connected, host, port), method, path, timeout)[0]


def why_silent(error: Exception) -> str:
    """Why there was no answer, without the system's error number."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _distrust(error)
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLError) and error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST"):
        return "it does not speak TLS on this port: is it the port of plain http?"
    if isinstance(error, http.client.RemoteDisconnected):
        return "the connection was closed without an answer"
    if isinstance(error, http.client.HTTPException):
        return f"the answer is not HTTP ({type(error).__name__})"
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return without_codes(said)


def _distrust(error: ssl.SSLCertVerificationError) -> str:
    reason = (error.verify_message or error.strerror or str(error)).removesuffix(".")
    hint = ". Name the roots of your own CA with --ca FILE" if error.verify_code in _NO_ROOT else ""
    return f"the certificate does not verify: {reason}{hint}"


def _http(connected: socket.socket, host: str, port: int) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection(host, port)
    connection.sock = connected
    connection.auto_open = 0  # otherwise http.client would reconnect by itself, by the DNS and without TLS
    return connection


def _exchange(
    connection: http.client.HTTPConnection, method: str, path: str, timeout: float
) -> tuple[tuple[int, Headers, bytes], bool]:
    """The answer, and whether the connection can serve no further request."""
    with _time_limit(connection.sock, timeout):
        connection.request(method, path, headers={"User-Agent": f"dynpin/{__version__}"})
        response = connection.getresponse()
        body = response.read(MAX_BODY)
    is_over = response.will_close or not response.isclosed()
    return (response.status, tuple(response.getheaders()), body), is_over


@contextmanager
def _time_limit(connected: socket.socket, seconds: float) -> Generator[None]:
    """A time limit for the whole answer: the socket's own restarts with each byte, and a slow server would block us."""
    late = threading.Event()

    def cut() -> None:
        late.set()
        with suppress(OSError):
            # Not SSLSocket's own shutdown(): it drops the object that another thread is reading from.
            socket.socket.shutdown(connected, socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (OSError, http.client.HTTPException):
        if not late.is_set():
            raise
    finally:
        timer.cancel()
    if late.is_set():
        # For http.client the cut is the end of the answer, or a broken answer.
        raise TimeoutError
