"""The client libraries behind one interface: visit URLs, one after the other, with one client of the library."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

import aiohttp
import aiohttp.abc
import httpx
import httpx2
import pytest
import requests
import urllib3.exceptions

from dynpin import Pin, PinValidationError
from dynpin.clientstore import PinStore, pin_violation
from dynpin.clientstore.aiohttp import PinnedConnector, pinned_session
from dynpin.clientstore.http_client import PinnedHTTPSConnection, PinnedHTTPSHandler
from dynpin.clientstore.httpx import PinnedAsyncClient, PinnedClient
from dynpin.clientstore.httpx2 import PinnedAsyncClient as PinnedAsyncClient2
from dynpin.clientstore.httpx2 import PinnedClient as PinnedClient2
from dynpin.clientstore.requests import PinnedSession
from dynpin.clientstore.urllib3 import pinned_pool_manager

from .world import HOST, World

__all__ = ["LIBRARIES", "Library", "Loopback", "every_library", "pins_of", "refused", "through_a_proxy", "visit"]

# When TLS inside a tunnel is refused, aiohttp leaves the outer transport to the event loop, which may end first.
through_a_proxy = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

Between = Callable[[], object]


class Visit(Protocol):
    """Request each URL with one client; `between` runs after each response. Returns the statuses in order."""

    def __call__(
        self,
        store: PinStore,
        context: ssl.SSLContext,
        urls: Sequence[str],
        *,
        method: str = "GET",
        proxy: str | None = None,
        between: Between | None = None,
        **options: Any,
    ) -> list[int]: ...


@dataclass(frozen=True)
class Library:
    """One library: how it visits, which class its user catches for a refusal, and what it can do.

    Attributes:
        plain_http: whether it requests http:// URLs too.
        pools: whether it keeps a connection for the next request.
        tls_proxies: whether it speaks TLS with a proxy.
        proxy_class: the class of a proxy that has an SSLContext of its own, for a library that wants that.
        http2: how it visits by HTTP/2.
    """

    name: str
    visit: Visit
    error: type[Exception]
    redirects: bool = True
    plain_http: bool = True
    pools: bool = True
    tls_proxies: bool = True
    proxy_class: Callable[..., object] | None = None
    http2: Visit | None = None

    def __str__(self) -> str:
        return self.name


Send = Callable[[str, str], int]  # a method and a URL; returns the status
SendAsync = Callable[[str, str], Awaitable[int]]
# With the store, the context, the first URL, the proxy and the client's options: what sends requests with one client.
Client = Callable[[PinStore, ssl.SSLContext, str, str | None, dict[str, Any]], AbstractContextManager[Send]]
AsyncClient = Callable[[PinStore, ssl.SSLContext, str | None, dict[str, Any]], AbstractAsyncContextManager[SendAsync]]


def _visit(client: Client) -> Visit:
    def visit(
        store: PinStore,
        context: ssl.SSLContext,
        urls: Sequence[str],
        *,
        method: str = "GET",
        proxy: str | None = None,
        between: Between | None = None,
        **options: Any,
    ) -> list[int]:
        found: list[int] = []
        with client(store, context, urls[0], proxy, options) as send:
            for url in urls:
                found.append(send(method, url))
                if between is not None:
                    between()
        return found

    return visit


def _visit_async(client: AsyncClient, loop: Callable[[], asyncio.AbstractEventLoop] | None = None) -> Visit:
    def visit(
        store: PinStore,
        context: ssl.SSLContext,
        urls: Sequence[str],
        *,
        method: str = "GET",
        proxy: str | None = None,
        between: Between | None = None,
        **options: Any,
    ) -> list[int]:
        async def run() -> list[int]:
            found: list[int] = []
            async with client(store, context, proxy, options) as send:
                for url in urls:
                    found.append(await send(method, url))
                    if between is not None:
                        between()
            if loop is not None:
                # uvloop ends the TLS of a closed connection in the background, and fails if its loop is gone by then.
                # There is no signal for the end, and aiohttp's own documentation recommends this pause.
                await asyncio.sleep(0.1)
            return found

        with asyncio.Runner(loop_factory=loop) as runner:
            return runner.run(run())

    return visit


_HTTPX = {"follow_redirects": True, "trust_env": False, "timeout": 60}


def _httpx(kind: Any, *, http2: bool = False) -> Visit:
    @contextmanager
    def client(
        store: PinStore, context: ssl.SSLContext, first: str, proxy: str | None, options: dict[str, Any]
    ) -> Generator[Send]:
        with kind(store, verify=context, **{**_HTTPX, "proxy": proxy, "http2": http2, **options}) as made:
            yield lambda method, url: made.request(method, url).status_code

    return _visit(client)


def _httpx_async(kind: Any, *, http2: bool = False) -> Visit:
    @asynccontextmanager
    async def client(
        store: PinStore, context: ssl.SSLContext, proxy: str | None, options: dict[str, Any]
    ) -> AsyncGenerator[SendAsync]:
        async with kind(store, verify=context, **{**_HTTPX, "proxy": proxy, "http2": http2, **options}) as made:

            async def send(method: str, url: str) -> int:
                return int((await made.request(method, url)).status_code)

            yield send

    return _visit_async(client)


def _both(name: str, visit: Callable[..., Visit], kind: type[Any], module: Any) -> Library:
    """A client of httpx or httpx2, by HTTP/1.1 and HTTP/2."""
    return Library(name, visit(kind), module.ConnectError, proxy_class=module.Proxy, http2=visit(kind, http2=True))


@contextmanager
def _requests(
    store: PinStore, context: ssl.SSLContext, first: str, proxy: str | None, options: dict[str, Any]
) -> Generator[Send]:
    with PinnedSession(store, context=context, **options) as session:
        session.trust_env = False
        session.proxies = {} if proxy is None else {"https": proxy, "http": proxy}
        if proxy is not None and proxy.startswith("https:"):
            adapter: Any = session.get_adapter("https://")
            adapter.proxy_manager_for(proxy, proxy_ssl_context=context)
        yield lambda method, url: session.request(method, url, timeout=60).status_code


@contextmanager
def _urllib3(
    store: PinStore, context: ssl.SSLContext, first: str, proxy: str | None, options: dict[str, Any]
) -> Generator[Send]:
    if proxy is not None and proxy.startswith("https:"):
        options["proxy_ssl_context"] = context
    retries = urllib3.Retry(other=0, redirect=5)
    with pinned_pool_manager(store, ssl_context=context, proxy_url=proxy, **options) as manager:
        yield lambda method, url: manager.request(method, url, retries=retries).status


class Loopback(aiohttp.abc.AbstractResolver):
    """A resolver for uvloop, which does not call socket.getaddrinfo."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[aiohttp.abc.ResolveResult]:
        return [
            aiohttp.abc.ResolveResult(
                hostname=host, host="127.0.0.1", port=port, family=socket.AF_INET, proto=0, flags=socket.AI_NUMERICHOST
            )
        ]

    async def close(self) -> None:
        pass


@asynccontextmanager
async def _aiohttp(
    store: PinStore, context: ssl.SSLContext, proxy: str | None, options: dict[str, Any]
) -> AsyncGenerator[SendAsync]:
    connector = PinnedConnector(store, ssl=context, resolver=Loopback(), **options)
    async with pinned_session(connector=connector) as session:

        async def send(method: str, url: str) -> int:
            async with session.request(method, url, proxy=proxy) as response:
                await response.read()
                return response.status

        yield send


def _uvloop() -> asyncio.AbstractEventLoop:
    return pytest.importorskip("uvloop").new_event_loop()  # type: ignore[no-any-return]


@contextmanager
def _http_client(
    store: PinStore, context: ssl.SSLContext, first: str, proxy: str | None, options: dict[str, Any]
) -> Generator[Send]:
    at = urlsplit(proxy or first)
    assert at.hostname is not None
    connection = PinnedHTTPSConnection(at.hostname, at.port, store=store, context=context, timeout=60, **options)
    if proxy is not None:
        connection.set_tunnel(str(urlsplit(first).hostname), urlsplit(first).port)

    def send(method: str, url: str) -> int:
        connection.request(method, urlsplit(url).path)
        response = connection.getresponse()
        response.read()
        return response.status

    with closing(connection):
        yield send


@contextmanager
def _urllib_request(
    store: PinStore, context: ssl.SSLContext, first: str, proxy: str | None, options: dict[str, Any]
) -> Generator[Send]:
    proxies = urllib.request.ProxyHandler({} if proxy is None else {"https": proxy})
    opener = urllib.request.build_opener(PinnedHTTPSHandler(store, context=context, **options), proxies)

    def send(method: str, url: str) -> int:
        with opener.open(urllib.request.Request(url, method=method), timeout=60) as response:
            response.read()
            return int(response.status)

    yield send


LIBRARIES = [
    _both("httpx", _httpx, PinnedClient, httpx),
    _both("httpx-async", _httpx_async, PinnedAsyncClient, httpx),
    _both("httpx2", _httpx, PinnedClient2, httpx2),
    _both("httpx2-async", _httpx_async, PinnedAsyncClient2, httpx2),
    Library("requests", _visit(_requests), requests.exceptions.SSLError),
    Library("urllib3", _visit(_urllib3), urllib3.exceptions.MaxRetryError),
    Library("aiohttp", _visit_async(_aiohttp), aiohttp.ClientConnectorCertificateError),
    Library("aiohttp-uvloop", _visit_async(_aiohttp, _uvloop), aiohttp.ClientConnectorCertificateError),
    Library(
        "http.client", _visit(_http_client), PinValidationError, redirects=False, plain_http=False, tls_proxies=False
    ),
    Library("urllib.request", _visit(_urllib_request), urllib.error.URLError, pools=False, tls_proxies=False),
]

every_library = pytest.mark.parametrize("library", LIBRARIES, ids=str)


def visit(world: World, library: Library, *urls: str, **options: object) -> list[int]:
    return library.visit(world.store, world.plain_context(), urls, **options)  # type: ignore[arg-type]


def refused(world: World, library: Library, url: str, **options: object) -> PinValidationError:
    """The violation of a visit to the attacker, who must not have read a byte."""
    with pytest.raises(library.error) as caught:
        visit(world, library, url, **options)
    assert type(caught.value) is library.error
    violation = pin_violation(caught.value)
    assert violation is not None
    caught.value.__traceback__ = None
    del caught
    gc.collect()  # closes what the library left open, so that the attacker's count is final
    world.attacker.wait_idle()
    assert world.attacker.connections > 0
    assert world.attacker.application_bytes == 0
    return violation


def pins_of(store: PinStore, host: str = HOST) -> tuple[Pin, ...]:
    known = store.known_host(host)
    return () if known is None else known.pins
