"""https requests to one node of a site: the fields and the chain that it sends, or why there was no answer.

A balancer or the DNS hides nodes from a client, and each may run another configuration. So each is asked by its own
address, with the site's name in SNI, in the check of the certificate and in Host.
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
# X509_V_ERR of OpenSSL: the chain ends in a certificate that is not a trusted root, or before one.
_NO_ROOT = (18, 19, 20, 21)

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class NodeLook:
    """What one node answered to one request.

    Attributes:
        address: where it was asked: an address, or the name of the node.
        port: its TCP port.
        path: what was asked for.
        scheme: ``"https"`` or ``"http"``.
        status: of the answer; None if there was none.
        headers: every field of the answer in order, repeated ones too.
        body: the first MiB of it.
        served: the certificates as the server sent them, DER, leaf first.
        validated: the chain that OpenSSL built and verified, DER, leaf first; empty if it did not verify.
        failure: why clients get no answer here, in words; None if all is well. A chain that does not verify is such
            a failure: `status`, `headers` and `served` tell what was sent all the same, to nobody who checks.
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
        """Where it was asked."""
        return Node(self.address, self.port)

    @property
    def is_verified(self) -> bool:
        """Whether a client that checks the chain gets this answer, over TLS."""
        return self.scheme == "https" and self.status is not None and self.failure is None

    def values(self, name: str) -> tuple[str, ...]:
        """Every value of this field, in order; its name in any case."""
        return tuple(value for each, value in self.headers if each.lower() == name.lower())


def addresses_of(host: str, port: int) -> tuple[str, ...]:
    """Every address of a host in the DNS, sixteen at most.

    Raises:
        OSError: if the name does not resolve.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(each[4][0]) for each in found))[:MAX_ADDRESSES]


def nodes_of(inventory: Inventory | None, host: str, port: int) -> tuple[Node, ...]:
    """Where a site is to be looked at: every address of the DNS, then every node that its inventory names.

    Raises:
        OSError: if the name does not resolve.
    """
    named = () if inventory is None else inventory.nodes
    return tuple(dict.fromkeys([*(Node(each, port) for each in addresses_of(host, port)), *map(Node.parse, named)]))


def look_at_node(
    host: str, port: int, address: str, context: ssl.SSLContext, *, path: str = "/", timeout: float = 10.0
) -> NodeLook:
    """Ask one node for one path.

    Args:
        host: the site's name, which the certificate must be for.
        port: the TCP port of the node.
        address: where the node is reached.
        context: verifies the chain.
        path: path and query as they stand in the request line.
        timeout: the most seconds for the connection, and for the answer.
    """
    return look_at_paths(host, port, address, context, (path,), timeout=timeout)[0]


def look_at_paths(
    host: str, port: int, address: str, context: ssl.SSLContext, paths: Sequence[str], *, timeout: float = 10.0
) -> tuple[NodeLook, ...]:
    """Ask one node for several paths, over one connection where the server leaves it open.

    A node that fails is asked no further: the last look has the failure.
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
    """Ask one node for one path over plain http, where no pinning field may be (RFC 7469 §2.2.2)."""
    try:
        with socket.create_connection((address, port), timeout) as plain:
            status, headers, body = exchange(plain, host, port, method="GET", path=path, timeout=timeout)
    except (OSError, http.client.HTTPException) as error:
        return NodeLook(address, port, path, "http", failure=why_silent(error))
    return NodeLook(address, port, path, "http", status, headers, body)


class _Node:
    """The connection to one node; made again where the server has closed it."""

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
                # A server may close a connection that waits; that says nothing about this request.
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
            # No client that checks gets as far; what such a site sends is still of interest.
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
    """One request and its answer over a connection that is made already: status, fields, the first MiB of the body.

    Raises:
        OSError: if the connection fails, or the answer is not there within `timeout` seconds.
        http.client.HTTPException: where the answer is no HTTP.
    """
    return _exchange(_http(connected, host, port), method, path, timeout)[0]


def why_silent(error: Exception) -> str:
    """Why there was no answer, without the number that the system gives it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _distrust(error)
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLError) and error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST"):
        return "it speaks no TLS on this port: is it the port of plain http?"
    if isinstance(error, http.client.RemoteDisconnected):
        return "the connection was closed without an answer"
    if isinstance(error, http.client.HTTPException):
        return f"the answer is no HTTP ({type(error).__name__})"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _distrust(error: ssl.SSLCertVerificationError) -> str:
    reason = (error.verify_message or error.strerror or str(error)).removesuffix(".")
    hint = ". Name the roots of your own CA with --ca FILE" if error.verify_code in _NO_ROOT else ""
    return f"the certificate does not verify: {reason}{hint}"


def _http(connected: socket.socket, host: str, port: int) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection(host, port)
    connection.sock = connected
    connection.auto_open = 0  # else http.client would connect again by itself, by the DNS and without TLS
    return connection


def _exchange(
    connection: http.client.HTTPConnection, method: str, path: str, timeout: float
) -> tuple[tuple[int, Headers, bytes], bool]:
    """The answer, and whether the connection has served its last."""
    with _time_limit(connection.sock, timeout):
        connection.request(method, path, headers={"User-Agent": f"dynpin/{__version__}"})
        response = connection.getresponse()
        body = response.read(MAX_BODY)
    is_over = response.will_close or not response.isclosed()
    return (response.status, tuple(response.getheaders()), body), is_over


@contextmanager
def _time_limit(connected: socket.socket, seconds: float) -> Generator[None]:
    """A limit for the whole answer: the socket's own starts again with each byte, so a slow server would hold us."""
    late = threading.Event()

    def cut() -> None:
        late.set()
        with suppress(OSError):
            # Past SSLSocket's own, which drops the object that another thread is reading from.
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
        # Whatever was read until then: to http.client the cut is the end of the answer, or a broken one.
        raise TimeoutError
