"""http.client and urllib.request: the standard library's connection and handler, which note and enforce pins."""

from __future__ import annotations

import http.client
import re
import ssl
import urllib.request
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Unpack
from urllib.parse import urlsplit

from dynpin.errors import UnenforceableContext
from dynpin.header import ENFORCE_NAME, REPORT_ONLY_NAME
from dynpin.noting import Noting

from .doubles import is_socket
from .enforcement import Peer, peer_of, request_site
from .names import Names, host_of_field, is_for
from .options import Lease, PinOptions, hardener, split_options
from .responses import note_response
from .store import PinStore

if TYPE_CHECKING:
    from typing import BinaryIO

__all__ = ["ConnectionOptions", "NotedConnection", "PinnedHTTPSConnection", "PinnedHTTPSHandler"]

# RFC 9112 §5.2: a recipient replaces each obs-fold by a space.
_FOLD = re.compile(r"[ \t]*\r?\n[ \t]+")

# Of a header section, with the informational responses before it. http.client itself allows 100 fields in each.
_MOST_LINES = 1000


class ConnectionOptions(PinOptions, total=False):
    """The options of :class:`http.client.HTTPSConnection`, and :class:`~dynpin.clientstore.PinOptions`."""

    timeout: float | None
    source_address: tuple[str, int] | None
    blocksize: int


class _Lines:
    """Reads the lines of a header section, and checks whether a line contains a bare CR.

    RFC 9112 §2.2 calls such a line invalid. The parser of http.client ends the line at the CR. So if a stranger chose
    the value of a field, the rest of the value would become a field of its own.

    A server that sends nothing but informational responses would hold the client for ever.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._left = _MOST_LINES
        self.bare_cr = False

    def readline(self, limit: int = -1) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise http.client.HTTPException(f"more than {_MOST_LINES} lines, and no final response")
        line = self._file.readline(limit)
        self.bare_cr |= b"\r" in line.removesuffix(b"\n").removesuffix(b"\r")
        return line

    def close(self) -> None:
        # If there is no status line, http.client ends the connection itself.
        self._file.close()


class _Response(http.client.HTTPResponse):
    """The final response. It knows whether the fields of its header section can be trusted.

    http.client skips "100 Continue", and takes another informational response, such as "103 Early Hints", for the
    answer (RFC 9110 §15.2). 101 is the last one: what follows it is not HTTP.
    """

    pin_bare_cr = False

    def begin(self) -> None:
        file = self.fp
        lines = _Lines(file)
        setattr(self, "fp", lines)  # noqa: B010 - http.client asks for no more until the section has ended
        try:
            super().begin()
            while 100 <= self.status < 200 and self.status != http.client.SWITCHING_PROTOCOLS:
                self.headers = self.msg = None  # type: ignore[assignment] # begin() reads if there are none
                super().begin()
        finally:
            if vars(self)["fp"] is lines:  # if the answer is not HTTP, http.client has closed it, and this is None
                self.fp = file
            self.pin_bare_cr = lines.bare_cr


@lru_cache(maxsize=32)
def _final(made: type[http.client.HTTPResponse]) -> type[http.client.HTTPResponse]:
    """The program's own class of responses, which also knows whether its fields can be trusted."""
    return type(made.__name__, (_Response, made), {"__module__": made.__module__})


class NotedConnection(http.client.HTTPConnection):
    """The additions to an https connection of http.client, or of a library that is built on it.

    It compares the names in each request with the name that TLS has verified, and notes the response to a request for
    that very https origin. Its context enforces the pins; the context is hardened elsewhere.

    Attributes:
        pin_store: the Known Pinned Hosts.
        pin_names: checks the names.
        noting: the result for the pins of the last response; None before the first response.
    """

    pin_store: PinStore
    pin_names: Names
    noting: Noting | None = None
    # These names hide no private name of the base class.
    _pin_peer: Peer | None = None
    _pin_seen: object = None
    # The name that was compared with that of TLS when the connection was seen.
    _pin_held = ""
    _pin_connects = False
    _pin_tunnel: tuple[str, int] | None = None
    _pin_asked: frozenset[str] = frozenset()
    _pin_elsewhere = False
    _pin_forwarded = False
    _pin_response: http.client.HTTPResponse | None = None

    def set_tunnel(
        self,
        host: str,
        port: int | None = None,
        headers: Mapping[str, str] | None = None,
        **options: Any,  # noqa: ANN401 - those of a library
    ) -> None:
        """Like http.client's. Behind CONNECT the site is the end of the tunnel."""
        super().set_tunnel(host, port, dict(headers or {}), **options)
        parts = urlsplit(f"//{host}")
        self._pin_tunnel = parts.hostname or host, port or parts.port or http.client.HTTPS_PORT

    def connect(self) -> None:
        """Like http.client's. A report of a failure contains the port of the site, also behind a proxy.

        Raises:
            PinValidationError: if the host is pinned to other keys; or if TLS has verified another name than the site's
                and either name is pinned.
            UnenforceableContext: if the connection was not made with a hardened context; nothing was sent.
        """
        self._pin_peer, self._pin_seen, self._pin_connects = None, None, True
        token = request_site.set(self._pin_site())
        try:
            super().connect()
        finally:
            request_site.reset(token)
            self._pin_connects = False
        self._pin_look()

    def _pin_look(self) -> None:
        """Refuse a socket that is not checked, and keep what TLS has proved. The user may set another one at any time.

        It is kept, since with `Connection: close` the socket is gone before the response is read.
        """
        if self.sock is self._pin_seen or self.sock is None or is_socket(self.sock):
            return  # seen already, or a test double that replays: vcrpy has no socket at all
        self._pin_peer = None
        try:
            self._pin_peer = self._pin_proved()
        except BaseException:
            self.sock.close()
            raise
        self._pin_seen, self._pin_held = self.sock, self._pin_site()[0]

    def _pin_proved(self) -> Peer:
        site = self._pin_site()[0]
        # For TLS inside TLS there is an outer object around the one that counts.
        peer = peer_of(self.sock) or peer_of(getattr(self.sock, "sslobj", None))
        if peer is None:
            raise UnenforceableContext(
                f"the connection to {site} is not checked against the pins, since it was made with another context "
                "than the enforced one; give the client the enforced context"
            )
        self.pin_names.hold([site], peer.host)
        return peer

    def putrequest(self, method: str, url: str, *args: Any, **options: Any) -> None:  # noqa: ANN401 - http.client's own
        """Like http.client's."""
        self._pin_asked, self._pin_elsewhere, self._pin_forwarded = frozenset(), False, False
        if not url.startswith("/"):
            self._pin_see_target(method, url)
        super().putrequest(method, url, *args, **options)

    def _pin_see_target(self, method: str, url: str) -> None:
        """Check whether the request has an absolute URL: a proxy may then forward it (RFC 9112 §3.2.2)."""
        host, port = self._pin_site()
        try:
            target = urlsplit(url)
            same = target.scheme == "https" and is_for(host, target.netloc) and (target.port or 443) == port
        except ValueError:
            target, same = urlsplit(""), False
        self._pin_forwarded = target.scheme == "http"
        self._pin_elsewhere = not same and bool(target.scheme or target.netloc or method.upper() == "CONNECT")
        if self._pin_elsewhere and not self._pin_forwarded and target.hostname:
            self._pin_asked = frozenset([target.hostname])

    def putheader(self, header: str | bytes, *values: Any) -> None:  # noqa: ANN401 - http.client's own
        """Like http.client's."""
        super().putheader(header, *values)
        name = header if isinstance(header, str) else header.decode("latin-1")
        if name.lower() == "host" and not self._pin_forwarded:
            host = self._pin_site()[0]
            for value in values:
                named = host_of_field(value.decode("latin-1") if isinstance(value, bytes) else str(value))
                if named and named != host and not is_for(host, named):
                    self._pin_asked |= {named}
                    self._pin_elsewhere = True

    def send(self, data: Any) -> None:  # noqa: ANN401 - http.client's own
        """Like http.client's, after a check of the request's names against that of the connection."""
        if not self._pin_connects:  # connect() sends CONNECT
            if self.sock is None and self.auto_open:
                self.connect()
            self._pin_look()
            if self._pin_peer is not None:
                # The user may have set `host` since the connection was made.
                host = {self._pin_site()[0]} - {self._pin_held}
                self.pin_names.hold(host | self._pin_asked, self._pin_peer.host)
        super().send(data)

    def response_class(  # type: ignore[override] # it is called like the class
        self,
        *args: Any,  # noqa: ANN401 - those of the class
        **options: Any,  # noqa: ANN401 - those of the class
    ) -> http.client.HTTPResponse:
        """Make the response, of the program's own class if it has one."""
        inherited: Any = super()
        made: Any = inherited.response_class  # or a function
        if isinstance(made, type) and issubclass(made, http.client.HTTPResponse):
            made = _final(made)
        response: http.client.HTTPResponse = made(*args, **options)
        self._pin_response = response
        return response

    def getresponse(self) -> http.client.HTTPResponse:
        """Like http.client's, and the response's pins are noted."""
        self._pin_response = None
        if self.sock is not None and self.sock is not self._pin_seen:
            self._pin_peer = None  # the user has set a socket since the request, or a test double that replays
        response = super().getresponse()
        self.noting = self._pin_note(self._pin_response or response)
        return response

    def _pin_note(self, response: http.client.HTTPResponse) -> Noting:
        host, port = self._pin_site()
        if self._pin_elsewhere:
            return Noting("ignored", f"the request was for another origin than https://{host}", "2.5")
        # http.client skips only status 100.
        if 100 <= response.status < 200 and response.status != http.client.SWITCHING_PROTOCOLS:
            return Noting("ignored", f"{response.status} is not a final response", "2.5")
        if getattr(response, "pin_bare_cr", False):
            return Noting("ignored", "the header section contains a bare CR (RFC 9112 §2.2)", "2.5")
        fields, report_only = (_fields(response.headers, name) for name in (ENFORCE_NAME, REPORT_ONLY_NAME))
        return note_response(self.pin_store, host, self._pin_peer, fields, report_only, port=port)

    def _pin_site(self) -> tuple[str, int]:
        return self._pin_tunnel or (self.host, self.port or http.client.HTTPS_PORT)


def _fields(headers: Any, name: str) -> list[str]:  # noqa: ANN401 - of http.client or of urllib3
    # get_all: headers["…"] may join several fields by a comma.
    values = headers.get_all(name, []) if hasattr(headers, "get_all") else headers.getlist(name)
    return [_FOLD.sub(" ", value) for value in values]


class _Connection(NotedConnection, http.client.HTTPSConnection):  # pyright: ignore[reportIncompatibleVariableOverride] # see response_class
    pass


class PinnedHTTPSConnection(_Connection):
    """An :class:`http.client.HTTPSConnection` that notes pins from responses, and refuses wrong keys before it sends.

    A refusal is the :class:`~dynpin.PinValidationError` itself.

    Args:
        host: the host to connect to.
        port: its port; None for 443, or for the port in `host`.
        store: the Known Pinned Hosts; None for the user's own store.
        context: a context of your own, which is hardened; None for :func:`ssl.create_default_context`.
        options: see :class:`ConnectionOptions`.

    Attributes:
        noting: the result for the pins of the last response; None before the first response.
    """

    _pin_reading = False

    def __init__(
        self,
        host: str,
        port: int | None = None,
        *,
        store: PinStore | None = None,
        context: ssl.SSLContext | None = None,
        **options: Unpack[ConnectionOptions],
    ) -> None:
        given: dict[str, Any] = {**options}
        pin_options = split_options(given)
        self._pin_lease = Lease(store, self)
        self.pin_store = self._pin_lease.store
        self.pin_names = Names(self.pin_store, pin_options)
        harden = hardener(self.pin_store, pin_options)
        super().__init__(
            host, port, context=harden(ssl.create_default_context() if context is None else context), **given
        )

    def connect(self) -> None:
        """Like http.client's. After a refusal the connection is closed, and can be used again."""
        try:
            super().connect()
        except BaseException:
            self.close()
            raise

    def getresponse(self) -> http.client.HTTPResponse:
        """Like http.client's, and the response's pins are noted."""
        self._pin_reading = True
        try:
            return super().getresponse()
        finally:
            self._pin_reading = False
            if self.sock is None:  # http.client closed it before the response was noted
                self._pin_lease.end()

    def close(self) -> None:
        """Like http.client's; closing the last client also closes the user's own store."""
        super().close()
        if not self._pin_reading:
            self._pin_lease.end()


class PinnedHTTPSHandler(urllib.request.HTTPSHandler):
    """A handler for ``urllib.request.build_opener(PinnedHTTPSHandler(store))``: its opener notes and enforces pins.

    A refusal is a :class:`urllib.error.URLError` with the :class:`~dynpin.PinValidationError` as its ``reason``.

    Args:
        store: the Known Pinned Hosts; None for the user's own store.
        context: a context of your own, which is hardened; None for :func:`ssl.create_default_context`.
        options: see :class:`~dynpin.clientstore.PinOptions`.
    """

    # Before any other handler for https: the first one in this order opens the URL.
    handler_order = urllib.request.HTTPSHandler.handler_order - 1

    def __init__(
        self,
        store: PinStore | None = None,
        *,
        context: ssl.SSLContext | None = None,
        **options: Unpack[PinOptions],
    ) -> None:
        pin_options = split_options({**options})
        self._pin_lease = Lease(store, self)
        self.pin_store = self._pin_lease.store
        harden = hardener(self.pin_store, pin_options)
        self._pin_names = Names(self.pin_store, pin_options)
        self.pin_context = harden(ssl.create_default_context() if context is None else context)
        super().__init__(context=self.pin_context)

    def _pin_connection(self, host: str, **options: Any) -> _Connection:  # noqa: ANN401 - urllib's own
        connection = _Connection(host, context=self.pin_context, **options)
        connection.pin_store, connection.pin_names = self.pin_store, self._pin_names
        return connection

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        """Like urllib's, with connections that note and enforce pins."""
        return self.do_open(self._pin_connection, req)

    def close(self) -> None:
        """Like urllib's; closing the last client also closes the user's own store."""
        super().close()
        self._pin_lease.end()
