"""The common code of the adapters for httpx and httpx2: the two libraries differ only in their names."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from copy import copy
from ipaddress import ip_address
from typing import Any, Generic, Protocol, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies

import anyio
import anyio.to_thread

from dynpin.errors import PinValidationError, UnenforceableContext
from dynpin.header import ENFORCE_NAME, REPORT_ONLY_NAME

from .enforcement import Peer, peer_of, pin_violation, request_site
from .names import Names, host_of_field, is_for
from .options import Lease, PinOptions, hardener, split_options
from .other_transports import TLS_SCHEMES, ClientWithPins, admit, host_of, in_shielded_thread
from .responses import note_response, note_response_async
from .store import PinStore

__all__ = ["Pinning", "TransportOptions", "pinned_client"]

_HTTPS_PORT = 443
_Limits = TypeVar("_Limits")
_Proxy = TypeVar("_Proxy")
_Value = TypeVar("_Value")

SocketOption = tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]


class TransportOptions(PinOptions, Generic[_Limits, _Proxy], total=False):
    """The options of the library's own transport, and :class:`~dynpin.clientstore.PinOptions`.

    Attributes:
        verify: True for the library's default roots; or an ``ssl.SSLContext`` of your own, which is hardened. With
            False, Known Pinned Hosts are refused and nothing is noted.
        cert: a client certificate, in the library's form.
        trust_env: whether ``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` count.
        http1: whether HTTP/1.1 is allowed.
        http2: whether HTTP/2 is allowed.
        limits: how many connections are kept.
        proxy: the proxy. The TLS of an https proxy is checked against the pins of the proxy's own name.
        uds: the path of a Unix domain socket that every request goes to; its TLS is checked against the pins of the
            URL's host.
        local_address: the address to connect from.
        retries: how often a failed connection is tried again. A refusal counts as a failure.
        socket_options: options of the sockets.
    """

    verify: ssl.SSLContext | str | bool
    cert: str | tuple[str, str] | tuple[str, str, str] | None
    trust_env: bool
    http1: bool
    http2: bool
    limits: _Limits
    proxy: _Proxy
    uds: str | None
    local_address: str | None
    retries: int
    socket_options: Iterable[SocketOption] | None


class _Request(Protocol):
    extensions: Any

    @property
    def method(self) -> str: ...
    @property
    def url(self) -> Any: ...  # noqa: ANN401 - the library's URL, as for the ones below
    @property
    def headers(self) -> Any: ...  # noqa: ANN401


class _Response(Protocol):
    @property
    def headers(self) -> Any: ...  # noqa: ANN401
    @property
    def extensions(self) -> Any: ...  # noqa: ANN401
    def close(self) -> None: ...
    async def aclose(self) -> None: ...


_AnyRequest = TypeVar("_AnyRequest", bound=_Request)
_AnyResponse = TypeVar("_AnyResponse", bound=_Response)


class Pinning:
    """The pins of one transport: its store, its contexts, and the work before and after each request.

    All of this happens below the client, whose hooks and attributes belong to its user.

    Args:
        library: the module, httpx or httpx2.
        transport: the transport.
        store: the Known Pinned Hosts; None for the user's own store.
        options: the options of the transport.

    Attributes:
        store: the Known Pinned Hosts.
        options: the options for the library's own transport: enforced contexts, without the pin options.
    """

    def __init__(self, library: Any, transport: object, store: PinStore | None, options: Mapping[str, Any]) -> None:  # noqa: ANN401
        self.options = dict(options)
        pin_options = split_options(self.options)
        self._lease = Lease(store, transport)
        self.store = self._lease.store
        self._library = library
        self._names = Names(self.store, pin_options)
        harden = hardener(self.store, pin_options)
        trust_env: bool = self.options.get("trust_env", True)
        self.options["verify"] = harden(
            library.create_ssl_context(
                verify=self.options.get("verify", True), cert=self.options.pop("cert", None), trust_env=trust_env
            )
        )
        given = self.options.get("proxy")
        if given is not None:
            proxy = copy(given) if isinstance(given, library.Proxy) else library.Proxy(given)
            if proxy.url.scheme == "https":
                # A proxy's TLS has its own context, which must not show the site's client certificate.
                proxy.ssl_context = harden(proxy.ssl_context or library.create_ssl_context(trust_env=trust_env))
            self.options["proxy"] = proxy

    def send(self, request: _AnyRequest, send: Callable[[_AnyRequest], _AnyResponse]) -> _AnyResponse:
        """Send a request with the library's own function, and note its response."""
        with self._site(request) as is_of_its_host:
            response = send(request)
        if is_of_its_host:
            try:
                note_response(self.store, *_seen(request, response), port=_port(request))
            except BaseException:
                response.close()  # the caller does not get the response, so cannot close it
                raise
        return response

    async def send_async(
        self, request: _AnyRequest, send: Callable[[_AnyRequest], Awaitable[_AnyResponse]]
    ) -> _AnyResponse:
        """:meth:`send` for an event loop, whose thread never waits for the disk or a lock."""
        with self._site(request) as is_of_its_host:
            try:
                response = await send(request)
            except self._library.ConnectError as error:
                violation = pin_violation(error)
                if violation is None or str(error):
                    raise
                # On trio the library's error has the violation behind it, and no text.
                raise self._library.ConnectError(str(violation)) from violation
        if is_of_its_host:
            try:
                seen = _seen(request, response)
                await note_response_async(self.store, *seen, port=_port(request), in_thread=_in_thread)
            except BaseException:  # most often the cancellation of the request
                with anyio.CancelScope(shield=True):
                    await response.aclose()
                raise
        return response

    def end(self) -> None:
        """End the lease on the store, because the transport is closed."""
        self._lease.end()

    async def end_async(self) -> None:
        """:meth:`end` for an event loop."""
        await in_shielded_thread(self._lease.end)

    @contextmanager
    def _site(self, request: _Request) -> Generator[bool]:
        """Put the port into reports about failures inside; yield whether the response is from the URL's host.

        Raises:
            UnenforceableContext: for an ``sni_hostname`` with another name.
            ConnectError: the library's, if the Host field names another Known Pinned Host than the URL.
        """
        host, is_tls = host_of(request), request.url.scheme in TLS_SCHEMES
        name: object = request.extensions.get("sni_hostname")
        if name:
            # httpcore keeps its connections by the URL's origin. A connection that was checked against another name's
            # pins would serve the next plain request for this host.
            if not isinstance(name, str) or not is_for(host, name):
                raise UnenforceableContext(
                    f"sni_hostname={name!r} would check the connection to {host} against the pins of another name; use "
                    "the URL of the name that TLS shall verify, and let that name resolve to the address"
                )
            # The name is the URL's host, so the option is removed: httpcore would use it for an https proxy too.
            request.extensions = {key: value for key, value in request.extensions.items() if key != "sni_hostname"}
        if (trace := request.extensions.get("trace")) is not None:
            request.extensions = {**request.extensions, "trace": _only_told(trace)}
        fields: list[str] = request.headers.get_list("host")
        # An answer to CONNECT, or to a request with another origin's URL as its path, comes from a proxy, not the site.
        is_of_the_site = is_tls and request.method != "CONNECT"
        target: bytes = request.extensions.get("target", b"/")
        if not target.startswith(b"/"):
            parts = urlsplit(target.decode("latin-1"))
            fields = [*fields, parts.netloc]
            is_of_the_site &= parts.scheme == "https" and (parts.port or _HTTPS_PORT) == _port(request)
        if is_tls:
            try:
                self._names.hold(map(host_of_field, fields), host)
            except PinValidationError as violation:
                raise self._library.ConnectError(str(violation)) from violation
        token = request_site.set((host, _port(request)) if is_tls else None)
        try:
            yield is_of_the_site and all(is_for(host, field) for field in fields)
        finally:
            request_site.reset(token)


def pinned_client(
    client: ClientWithPins,
    library: Any,  # noqa: ANN401 - a module
    made: type[Any],
    store: PinStore | None,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """The options of the library's own client, with transports that are pinned or make no TLS connection.

    Args:
        client: the client that is being made.
        library: the module, httpx or httpx2.
        made: the class of the pinned transports, synchronous or not, as the client is.
        store: the Known Pinned Hosts; None for the user's own store.
        options: the options of the pinned client.

    Raises:
        UnenforceableContext: for the library's own transport, which would connect without checking the pins.
        TypeError: for a pinned transport together with options that belong to it.
    """
    options = dict(options)
    pin_options = split_options(options)
    public_roots = pin_options.get("public_roots")
    if public_roots is not None:
        pin_options["public_roots"] = tuple(public_roots)  # an iterator can be read only once
    transport: Any = options.get("transport")
    mounts: Mapping[str, Any] = options.get("mounts") or {}
    if isinstance(transport, made):
        if pin_options or store not in (None, transport.pin_store):
            raise TypeError(f"transport= has a store and options of its own: give them to {made.__name__}(...) alone")
        store = transport.pin_store

    trust_env: bool = options.get("trust_env", True)
    proxies = {"all://": options.pop("proxy", None)}
    if proxies["all://"] is None:
        proxies = proxies_of_the_environment() if trust_env and transport is None else {}
    how = {name: options[name] for name in ("http1", "http2", "limits", "trust_env") if name in options} | pin_options
    verify, cert = options.pop("verify", True), options.pop("cert", None)
    if transport is None or any(proxies.values()):
        # One for all, since making one takes long.
        how["verify"] = library.create_ssl_context(verify=verify, cert=cert, trust_env=trust_env)

    def admitted(option: str, given: Any) -> Any:  # noqa: ANN401 - the library's transports
        return admit(library, made, option, given, store=store, pin_options=pin_options)

    client.pin_admit = admitted
    options["transport"] = made(store, **how) if transport is None else admitted("transport=", transport)
    options["mounts"] = {
        pattern: None if proxy is None else made(store, **how, proxy=proxy) for pattern, proxy in proxies.items()
    } | {pattern: admitted("mounts=", given) for pattern, given in mounts.items()}
    return options


def proxies_of_the_environment() -> dict[str, str | None]:
    """The proxies of the environment, by the library's URL patterns; None for no proxy."""
    found = getproxies()
    exempt = [name for name in map(str.strip, found.get("no", "").split(",")) if name]
    if "*" in exempt:
        return {}
    proxies: dict[str, str | None] = {
        f"{scheme}://": url if "://" in url else f"http://{url}"
        for scheme in ("http", "https", "all")
        if (url := found.get(scheme))
    }
    return proxies | {_exempt(name): None for name in exempt}


def _exempt(name: str) -> str:
    if "://" in name:
        return name
    address, slash, prefix = name.partition("/")  # of a network only the first address counts
    try:
        version = ip_address(address).version
    except ValueError:
        return f"all://{name}" if name.lower() == "localhost" else f"all://*{name}"
    return f"all://{name}" if version == 4 else f"all://[{address}]{slash}{prefix}"


def _seen(request: _Request, response: _Response) -> tuple[str, Peer | None, list[str], list[str]]:
    """The arguments of note_response: the host, the connection, the fields."""
    headers = response.headers
    # get_list: headers["…"] would join several fields by a comma.
    return host_of(request), _peer(response), headers.get_list(ENFORCE_NAME), headers.get_list(REPORT_ONLY_NAME)


def _peer(response: _Response) -> Peer | None:
    stream = response.extensions.get("network_stream")
    if stream is None:
        return None  # a test double's
    # Asynchronous streams, and TLS inside TLS, give the SSLObject. Over a plain socket "ssl_object" is the object
    # inside the SSLSocket, and "socket" is the SSLSocket itself.
    return peer_of(stream.get_extra_info("ssl_object")) or peer_of(stream.get_extra_info("socket"))


def _only_told(trace: Callable[[str, dict[str, Any]], _Value]) -> Callable[[str, dict[str, Any]], _Value]:
    """The function of the extension `trace`, with copies: httpcore goes on with the arguments that it has shown."""

    def told(event: str, shown: dict[str, Any]) -> _Value:
        shown = dict(shown)
        if "request" in shown:
            shown["request"] = copy(shown["request"])
            shown["request"].headers = list(shown["request"].headers)
        return trace(event, shown)

    return told


def _port(request: _Request) -> int:
    port: int | None = request.url.port
    return port or _HTTPS_PORT


def _in_thread(function: Callable[[], _Value], /) -> Awaitable[_Value]:
    # anyio's threads work for asyncio and trio. asyncio's own threads are few, and are also used for DNS. If a request
    # is cancelled, its noting continues in the thread.
    return anyio.to_thread.run_sync(function, abandon_on_cancel=True)
