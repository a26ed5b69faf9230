"""The client libraries behind one interface: visit URLs, one after the other, with one client of the library."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Sequence
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
from dynpin.clientstore.aiohttp import pinned_session
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


_HTTPX = {"follow_redirects": True, "trust_env": False, "timeout": 60}


def _httpx(client_class: Any, *, http2: bool = False) -> Visit:
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
        options = {**_HTTPX, "proxy": proxy, "http2": http2, **options}
        with client_class(store, verify=context, **options) as client:
            for url in urls:
                found.append(client.request(method, url).status_code)
                if between is not None:
                    between()
        return found

    return visit


def _httpx_async(client_class: Any, *, http2: bool = False) -> Visit:
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
        options = {**_HTTPX, "proxy": proxy, "http2": http2, **options}

        async def run() -> list[int]:
            found: list[int] = []
            async with client_class(store, verify=context, **options) as client:
                for url in urls:
                    found.append((await client.request(method, url)).status_code)
                    if between is not None:
                        between()
            return found

        return asyncio.run(run())

    return visit


def _requests(
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
    with PinnedSession(store, context=context, **options) as session:
        session.trust_env = False
        session.proxies = {} if proxy is None else {"https": proxy, "http": proxy}
        if proxy is not None and proxy.startswith("https:"):
            adapter: Any = session.get_adapter("https://")
            adapter.proxy_manager_for(proxy, proxy_ssl_context=context)
        for url in urls:
            found.append(session.request(method, url, timeout=60).status_code)
            if between is not None:
                between()
    return found


def _urllib3(
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
    if proxy is not None and proxy.startswith("https:"):
        options["proxy_ssl_context"] = context
    with pinned_pool_manager(store, ssl_context=context, proxy_url=proxy, **options) as manager:
        for url in urls:
            found.append(manager.request(method, url, retries=urllib3.Retry(other=0, redirect=5)).status)
            if between is not None:
                between()
    return found


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


def _aiohttp(loop: Callable[[], asyncio.AbstractEventLoop] | None) -> Visit:
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
            from dynpin.clientstore.aiohttp import PinnedConnector

            found: list[int] = []
            connector = PinnedConnector(store, ssl=context, resolver=Loopback(), **options)
            async with pinned_session(connector=connector) as session:
                for url in urls:
                    async with session.request(method, url, proxy=proxy) as response:
                        await response.read()
                        found.append(response.status)
                    if between is not None:
                        between()
            return found

        return _run(run, loop)

    return visit


def _run(run: Callable[[], Awaitable[list[int]]], loop: Callable[[], asyncio.AbstractEventLoop] | None) -> list[int]:
    async def main() -> list[int]:
        found = await run()
        if loop is not None:
            # uvloop ends the TLS of a closed connection in the background, and fails if its loop is gone by then. There
            # is no signal for the end, and aiohttp's own documentation recommends this pause.
            await asyncio.sleep(0.1)
        return found

    with asyncio.Runner(loop_factory=loop) as runner:
        return runner.run(main())


def _uvloop() -> asyncio.AbstractEventLoop:
    return pytest.importorskip("uvloop").new_event_loop()  # type: ignore[no-any-return]


def _http_client(
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
    first = urlsplit(urls[0])
    at = first if proxy is None else urlsplit(proxy)
    assert at.hostname is not None
    connection = PinnedHTTPSConnection(at.hostname, at.port, store=store, context=context, timeout=60, **options)
    if proxy is not None:
        connection.set_tunnel(str(first.hostname), first.port)
    try:
        for url in urls:
            connection.request(method, urlsplit(url).path)
            response = connection.getresponse()
            response.read()
            found.append(response.status)
            if between is not None:
                between()
    finally:
        connection.close()
    return found


def _urllib_request(
    store: PinStore,
    context: ssl.SSLContext,
    urls: Sequence[str],
    *,
    method: str = "GET",
    proxy: str | None = None,
    between: Between | None = None,
    **options: Any,
) -> list[int]:
    proxies = urllib.request.ProxyHandler({} if proxy is None else {"https": proxy})
    opener = urllib.request.build_opener(PinnedHTTPSHandler(store, context=context, **options), proxies)
    found: list[int] = []
    for url in urls:
        with opener.open(urllib.request.Request(url, method=method), timeout=60) as response:
            response.read()
            found.append(response.status)
        if between is not None:
            between()
    return found


LIBRARIES = [
    Library(
        "httpx",
        _httpx(PinnedClient),
        httpx.ConnectError,
        proxy_class=httpx.Proxy,
        http2=_httpx(PinnedClient, http2=True),
    ),
    Library(
        "httpx-async",
        _httpx_async(PinnedAsyncClient),
        httpx.ConnectError,
        proxy_class=httpx.Proxy,
        http2=_httpx_async(PinnedAsyncClient, http2=True),
    ),
    Library(
        "httpx2",
        _httpx(PinnedClient2),
        httpx2.ConnectError,
        proxy_class=httpx2.Proxy,
        http2=_httpx(PinnedClient2, http2=True),
    ),
    Library(
        "httpx2-async",
        _httpx_async(PinnedAsyncClient2),
        httpx2.ConnectError,
        proxy_class=httpx2.Proxy,
        http2=_httpx_async(PinnedAsyncClient2, http2=True),
    ),
    Library("requests", _requests, requests.exceptions.SSLError),
    Library("urllib3", _urllib3, urllib3.exceptions.MaxRetryError),
    Library("aiohttp", _aiohttp(None), aiohttp.ClientConnectorCertificateError),
    Library("aiohttp-uvloop", _aiohttp(_uvloop), aiohttp.ClientConnectorCertificateError),
    Library("http.client", _http_client, PinValidationError, redirects=False, plain_http=False, tls_proxies=False),
    Library("urllib.request", _urllib_request, urllib.error.URLError, pools=False, tls_proxies=False),
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
