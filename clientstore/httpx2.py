"""httpx2: synchronous and asynchronous transports and clients that note and enforce pins, for HTTP/1.1 and HTTP/2."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar, Unpack

import httpx2

from .options import PinOptions
from .other_transports import ChecksPins, ClientWithPins
from .store import PinStore
from .transports import Pinning, TransportOptions, pinned_client

if TYPE_CHECKING:
    from httpx2._types import AuthTypes, CertTypes, CookieTypes, HeaderTypes, QueryParamTypes, TimeoutTypes

__all__ = ["ClientOptions", "PinnedAsyncClient", "PinnedAsyncTransport", "PinnedClient", "PinnedTransport"]

_Proxy = httpx2.URL | str | httpx2.Proxy | None
_Transport = TypeVar("_Transport")


class PinnedTransport(ChecksPins, httpx2.HTTPTransport):
    """An :class:`httpx2.HTTPTransport` that notes pins from responses, and refuses wrong keys before it sends.

    Use it as ``transport=`` or in ``mounts=`` of any client::

        httpx2.Client(mounts={"https://bank.test": PinnedTransport(store, retries=3)})

    A refusal is an :class:`httpx2.ConnectError`; :func:`dynpin.clientstore.pin_violation` finds the
    :class:`~dynpin.PinValidationError` in it.

    Args:
        store: the Known Pinned Hosts; None for the user's own store.
        options: see :class:`~dynpin.clientstore.transports.TransportOptions`.

    Attributes:
        pin_store: the Known Pinned Hosts.

    Raises:
        UnenforceableContext: if pins cannot be enforced on the context; or at a request with an ``sni_hostname``
            other than the URL's host.
    """

    def __init__(
        self, store: PinStore | None = None, **options: Unpack[TransportOptions[httpx2.Limits, _Proxy]]
    ) -> None:
        self._pinning = Pinning(httpx2, self, store, options)
        self.pin_store = self._pinning.store
        super().__init__(**self._pinning.options)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Like httpx2's, checked against the pins; the response is noted."""
        return self._pinning.send(request, super().handle_request)

    def close(self) -> None:
        """Like httpx2's."""
        super().close()
        self._pinning.end()

    def __exit__(self, *exc_info: Any) -> None:  # noqa: ANN401 - httpx2's own
        super().__exit__(*exc_info)
        self._pinning.end()


class PinnedAsyncTransport(ChecksPins, httpx2.AsyncHTTPTransport):
    """An :class:`httpx2.AsyncHTTPTransport` that notes and enforces pins: see :class:`PinnedTransport`.

    It works with asyncio and trio. The event loop's thread never waits for the store.
    """

    def __init__(
        self, store: PinStore | None = None, **options: Unpack[TransportOptions[httpx2.Limits, _Proxy]]
    ) -> None:
        self._pinning = Pinning(httpx2, self, store, options)
        self.pin_store = self._pinning.store
        super().__init__(**self._pinning.options)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Like httpx2's, checked against the pins; the response is noted."""
        return await self._pinning.send_async(request, super().handle_async_request)

    async def aclose(self) -> None:
        """Like httpx2's."""
        await super().aclose()
        await self._pinning.end_async()

    async def __aexit__(self, *exc_info: Any) -> None:  # noqa: ANN401 - httpx2's own
        await super().__aexit__(*exc_info)
        await self._pinning.end_async()


class ClientOptions(PinOptions, Generic[_Transport], total=False):
    """The options of :class:`httpx2.Client`, and :class:`~dynpin.clientstore.PinOptions`.

    ``verify``, ``cert``, ``trust_env``, ``http1``, ``http2``, ``limits`` and ``proxy`` are as in
    :class:`~dynpin.clientstore.transports.TransportOptions`.

    Attributes:
        transport: a :class:`PinnedTransport`, with a store and options of its own; or a double for tests, such as
            :class:`httpx2.MockTransport`. One that retries or caches is allowed if the one inside it is, at the time
            of each request. Any other kind may connect to all hosts but Known Pinned Hosts.
        mounts: such transports by their URL patterns.
    """

    auth: AuthTypes | None
    params: QueryParamTypes | None
    headers: HeaderTypes | None
    cookies: CookieTypes | None
    verify: ssl.SSLContext | str | bool
    cert: CertTypes | None
    trust_env: bool
    http1: bool
    http2: bool
    proxy: _Proxy
    mounts: Mapping[str, _Transport | None] | None
    timeout: TimeoutTypes
    follow_redirects: bool
    limits: httpx2.Limits
    max_redirects: int
    event_hooks: Mapping[str, list[Callable[..., Any]]] | None
    base_url: httpx2.URL | str
    transport: _Transport | None
    default_encoding: str | Callable[[bytes], str | None]


class PinnedClient(ClientWithPins, httpx2.Client):
    """An :class:`httpx2.Client` with pinned transports: see :class:`PinnedTransport`.

    The proxies of the environment work as they do in httpx2; the TLS of an https proxy is checked against the pins of
    the proxy's own name.

    Args:
        store: the Known Pinned Hosts; None for the user's own store, or that of a :class:`PinnedTransport`.
        options: see :class:`ClientOptions`.

    Raises:
        UnenforceableContext: for an :class:`httpx2.HTTPTransport` of your own, which would not check the pins.
        TypeError: for a :class:`PinnedTransport` together with a store or pin options.
    """

    def __init__(self, store: PinStore | None = None, **options: Unpack[ClientOptions[httpx2.BaseTransport]]) -> None:
        super().__init__(**pinned_client(self, httpx2, PinnedTransport, store, options))


class PinnedAsyncClient(ClientWithPins, httpx2.AsyncClient):
    """An :class:`httpx2.AsyncClient` with pinned transports; see :class:`PinnedClient`."""

    def __init__(
        self, store: PinStore | None = None, **options: Unpack[ClientOptions[httpx2.AsyncBaseTransport]]
    ) -> None:
        super().__init__(**pinned_client(self, httpx2, PinnedAsyncTransport, store, options))
