"""What the adapters of httpx and httpx2 have in common: the two libraries differ in their names alone."""

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

from dynpin.errors import InvalidHost, PinValidationError, UnenforceableContext
from dynpin.header import ENFORCE_NAME, REPORT_ONLY_NAME
from dynpin.hosts import canonical_host

from .enforcement import Enforcement, Handshake, Peer, peer_of, request_site
from .options import Lease, PinOptions, hardener, split_options
from .responses import note_response, note_response_async
from .store import PinStore

__all__ = ["Pinning", "TransportOptions", "pinned_client"]

_HTTPS_PORT = 443
_Limits = TypeVar("_Limits")
_Proxy = TypeVar("_Proxy")
_Value = TypeVar("_Value")
_TLS = ("https", "wss")

SocketOption = tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]


class TransportOptions(PinOptions, Generic[_Limits, _Proxy], total=False):
    """What the library's own transport takes, and :class:`~dynpin.clientstore.PinOptions`.

    Attributes:
        verify: True for the library's default roots; or an ``ssl.SSLContext`` of your own, which is hardened. With
            False, Known Pinned Hosts are refused and nothing is noted.
        cert: a client certificate, as the library has it.
        trust_env: whether ``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` count.
        http1: whether HTTP/1.1 may be spoken.
        http2: whether HTTP/2 may be spoken.
        limits: how many connections are kept.
        proxy: the proxy. The TLS of an https proxy is held against the pins of the proxy's own name.
        uds: the path of a Unix domain socket, which every request goes to; its TLS is held against the pins of the
            URL's host.
        local_address: the address to connect from.
        retries: how often a connection that fails is tried again. A refusal is such a failure.
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
    """What pins one transport: its store, its contexts, and what is done before and after each request.

    All that dynpin does stands here, below the client: its hooks and its attributes are its users' to write.

    Args:
        library: the module, httpx or httpx2.
        transport: the transport.
        store: the Known Pinned Hosts; None for the user's own store.
        options: the options of the transport.

    Attributes:
        store: the Known Pinned Hosts.
        options: what the library's own transport is made with: contexts that enforce, without the options of pins.
    """

    def __init__(self, library: Any, transport: object, store: PinStore | None, options: Mapping[str, Any]) -> None:  # noqa: ANN401
        self.options = dict(options)
        pin_options = split_options(self.options)
        self._lease = Lease(store, transport)
        self._is_own = store is None
        self.store = self._lease.store
        self._unproved = Unproved(library, self.store, pin_options)
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
                # Its TLS has a context of its own, which must not show the site's client certificate.
                proxy.ssl_context = harden(proxy.ssl_context or library.create_ssl_context(trust_env=trust_env))
            self.options["proxy"] = proxy

    def send(self, request: _AnyRequest, send: Callable[[_AnyRequest], _AnyResponse]) -> _AnyResponse:
        """Send a request by the library's own means, and note its response."""
        with self._site(request) as is_of_its_host:
            response = send(request)
        if is_of_its_host:
            try:
                note_response(self.store, *_seen(request, response), port=_port(request))
            except BaseException:
                response.close()  # the caller does not get it, so he cannot
                raise
        return response

    async def send_async(
        self, request: _AnyRequest, send: Callable[[_AnyRequest], Awaitable[_AnyResponse]]
    ) -> _AnyResponse:
        """:meth:`send` for an event loop, whose thread never waits for the disk or a lock."""
        with self._site(request) as is_of_its_host:
            response = await send(request)
        if is_of_its_host:
            try:
                seen = _seen(request, response)
                await note_response_async(self.store, *seen, port=_port(request), in_thread=_in_thread)
            except BaseException:  # a request that is cancelled, above all
                with anyio.CancelScope(shield=True):
                    await response.aclose()
                raise
        return response

    def end(self) -> None:
        """The transport is closed."""
        self._lease.end()

    async def end_async(self) -> None:
        """:meth:`end` for an event loop: closing a database may wait for the disk."""
        if self._is_own:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._lease.end)

    @contextmanager
    def _site(self, request: _Request) -> Generator[bool]:
        """Have a report about what fails meanwhile carry the port; tell whether the answer is one of the URL's host.

        Raises:
            UnenforceableContext: with an ``sni_hostname`` of another name.
            ConnectError: the library's, where the Host header names a Known Pinned Host that is not the URL's.
        """
        host, is_tls = _host(request), request.url.scheme in _TLS
        name = request.extensions.get("sni_hostname")
        if name:
            _refuse_other_name(name, host)
            # It says nothing new, and httpcore would use it for the TLS of an https proxy too.
            request.extensions = {key: value for key, value in request.extensions.items() if key != "sni_hostname"}
        others = _other_hosts(request, host)
        for other in others if is_tls else ():
            self._unproved.refuse_pinned(other, f"TLS verifies {host}, and the Host header alone names {other}")
        token = request_site.set((host, _port(request)))
        try:
            # What a proxy says to CONNECT, and to a URL in the place of a path, is no word of the site.
            target: bytes = request.extensions.get("target", b"/")
            yield is_tls and not others and request.method != "CONNECT" and target.startswith(b"/")
        finally:
            request_site.reset(token)


class Unproved:
    """Connections that prove nothing about a name: none may be for a Known Pinned Host.

    Args:
        library: the module, httpx or httpx2.
        store: the Known Pinned Hosts.
        options: ``on_mismatch`` and ``on_violation`` count.
    """

    def __init__(self, library: Any, store: PinStore, options: PinOptions) -> None:  # noqa: ANN401
        self._library = library
        self._enforcement = Enforcement(
            store, on_mismatch=options.get("on_mismatch", "refuse"), on_violation=options.get("on_violation")
        )

    def refuse_pinned(self, host: str, why: str) -> None:
        """Refuse a connection for the host if it is pinned.

        Raises:
            ConnectError: the library's; :func:`~dynpin.clientstore.pin_violation` finds the violation in it.
        """
        handshake = Handshake(
            asked=host, name=host, strict=False, chain=[], resumed=False, earlier=None, served=tuple, may_wait=False
        )
        try:
            self._enforcement.check(handshake)
        except PinValidationError as error:
            said = f"{host} is pinned, but {why}, so its pins cannot be checked. No request was sent."
            raise self._library.ConnectError(said) from PinValidationError(said, validation=error.validation)


class OtherTransport:
    """A transport of an unknown kind, which shows no TLS connection: it may reach all but Known Pinned Hosts."""

    def __init__(self, library: Any, transport: Any, store: PinStore | None, options: PinOptions) -> None:  # noqa: ANN401
        self._transport = transport
        self._lease = Lease(store, self)
        self._unproved = Unproved(library, self._lease.store, options)

    def handle_request(self, request: _Request) -> Any:  # noqa: ANN401 - the library's response
        """As the transport's own."""
        self._look_at(request)
        return self._transport.handle_request(request)

    async def handle_async_request(self, request: _Request) -> Any:  # noqa: ANN401 - the library's response
        """As the transport's own."""
        self._look_at(request)
        return await self._transport.handle_async_request(request)

    def _look_at(self, request: _Request) -> None:
        if request.url.scheme in _TLS:
            why = (
                f"a {type(self._transport).__name__} shows no TLS connection. Give a PinnedTransport, by itself or "
                "within it; or MockTransport, ASGITransport or WSGITransport for a test"
            )
            for host in {_host(request), *_other_hosts(request, _host(request))}:
                self._unproved.refuse_pinned(host, why)

    def __enter__(self) -> OtherTransport:
        self._transport.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._transport.__exit__(*exc_info)

    async def __aenter__(self) -> OtherTransport:
        await self._transport.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._transport.__aexit__(*exc_info)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - close, aclose and what else it has
        return getattr(self._transport, name)


def pinned_client(library: Any, made: type[Any], store: PinStore | None, options: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ANN401
    """The options of the library's own client, with which every transport is pinned, or makes no TLS connection.

    Args:
        library: the module, httpx or httpx2.
        made: the class of the pinned transports: synchronous or not, as the client is.
        store: the Known Pinned Hosts; None for the user's own store.
        options: the options of the pinned client.

    Raises:
        UnenforceableContext: with a transport of the library's own, which would connect past the pins.
        TypeError: with a pinned transport, and options that belong to it.
    """
    options = dict(options)
    pin_options = split_options(options)
    public_roots = pin_options.get("public_roots")
    if public_roots is not None:
        pin_options["public_roots"] = frozenset(public_roots)  # an iterator gives them once
    transport: Any = options.get("transport")
    mounts: Mapping[str, Any] = options.get("mounts") or {}
    if isinstance(transport, made):
        if pin_options or store not in (None, transport.pin_store):
            raise TypeError(f"transport= has a store and options of its own: give them to {made.__name__}(...) alone")
        store = transport.pin_store

    trust_env: bool = options.get("trust_env", True)
    proxies = {"all://": options.pop("proxy", None)}
    if proxies["all://"] is None:
        proxies = _proxies_of_the_environment() if trust_env and transport is None else {}
    how = {name: options[name] for name in ("http1", "http2", "limits", "trust_env") if name in options} | pin_options
    verify, cert = options.pop("verify", True), options.pop("cert", None)
    if transport is None or any(proxies.values()):
        # One for all, since it takes long to make.
        how["verify"] = library.create_ssl_context(verify=verify, cert=cert, trust_env=trust_env)

    def admitted(option: str, given: Any) -> Any:  # noqa: ANN401 - the library's transports
        if given is None or isinstance(
            given, (made, library.MockTransport, library.ASGITransport, library.WSGITransport)
        ):
            return given
        if isinstance(given, (library.HTTPTransport, library.AsyncHTTPTransport)):
            raise UnenforceableContext(
                f"{option}= has a {type(given).__name__}, which connects past the pins: give a "
                f"{made.__module__}.{made.__name__}, which takes the same options"
            )
        # One that retries or caches has another one inside.
        kinds = (library.BaseTransport, library.AsyncBaseTransport)
        inside = [value for value in getattr(given, "__dict__", {}).values() if isinstance(value, kinds)]
        if inside and all(admitted(option, value) is value for value in inside):
            return given
        return OtherTransport(library, given, store, pin_options)

    options["transport"] = made(store, **how) if transport is None else admitted("transport", transport)
    options["mounts"] = {
        pattern: None if proxy is None else made(store, **how, proxy=proxy) for pattern, proxy in proxies.items()
    } | {pattern: admitted("mounts", given) for pattern, given in mounts.items()}
    return options


def _proxies_of_the_environment() -> dict[str, str | None]:
    """The proxies of the environment by the pattern under which the library mounts them; None for no proxy."""
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
    try:
        # "10.0.0.0/8" is looked at by its address, as the library does.
        address = ip_address(name.partition("/")[0])
    except ValueError:
        return f"all://{name}" if name.lower() == "localhost" else f"all://*{name}"
    return f"all://{name}" if address.version == 4 else f"all://[{name}]"


def _seen(request: _Request, response: _Response) -> tuple[str, Peer | None, list[str], list[str]]:
    """What note_response takes: the host, the connection, the fields."""
    headers = response.headers
    # The list: headers["…"] would join several fields by a comma.
    return _host(request), _peer(response), headers.get_list(ENFORCE_NAME), headers.get_list(REPORT_ONLY_NAME)


def _peer(response: _Response) -> Peer | None:
    stream = response.extensions.get("network_stream")
    if stream is None:
        return None  # a test double's
    # Asynchronous streams, and TLS inside TLS, give the SSLObject; over a plain socket "ssl_object" is what stands
    # inside the SSLSocket, and "socket" is the SSLSocket itself.
    return peer_of(stream.get_extra_info("ssl_object")) or peer_of(stream.get_extra_info("socket"))


def _host(request: _Request) -> str:
    """The host as TLS is told it, in ASCII."""
    raw: bytes = request.url.raw_host
    return raw.decode("ascii")


def _port(request: _Request) -> int:
    port: int | None = request.url.port
    return port or _HTTPS_PORT


def _other_hosts(request: _Request, host: str) -> list[str]:
    """The hosts that the Host header names beside the URL's own."""
    values: list[str] = request.headers.get_list("host")
    return [name for value in values if not _is_same_host(name := _without_port(value), host)]


def _without_port(value: str) -> str:
    try:
        return urlsplit(f"//{value}").hostname or ""
    except ValueError:
        return value


def _refuse_other_name(name: object, host: str) -> None:
    # httpcore keeps its connections by the URL's origin: one whose TLS was held against the pins of another name would
    # serve the next plain request for this host.
    if not isinstance(name, str) or not _is_same_host(name, host):
        raise UnenforceableContext(
            f"sni_hostname={name!r} would have the connection to {host} held against the pins of another name; ask for "
            "the URL of the name that TLS shall verify, and have that name resolve to the address"
        )


def _is_same_host(name: str, host: str) -> bool:
    try:
        return name == host or canonical_host(name) == canonical_host(host)
    except InvalidHost:
        return False


def _in_thread(function: Callable[[], _Value], /) -> Awaitable[_Value]:
    # anyio's threads are for asyncio and trio; and asyncio's own are few, and look up names as well. A request that is
    # cancelled does not wait for its noting, which goes on.
    return anyio.to_thread.run_sync(function, abandon_on_cancel=True)
