"""dynpin with each library, as its users install it: a store, the adapter, a queue of reports."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from contextlib import closing
from urllib.parse import urlsplit

from dynpin.clientstore import PinOptions, PinStore, ReportQueue, pin_violation
from dynpin.lab.network import loopback_names
from dynpin.lab.residents.task import Answer, Task, do

__all__ = ["GETS", "Get", "Library"]

# Gets a URL. Redirects are followed if the library follows any.
Get = Callable[[str, PinStore, ssl.SSLContext, PinOptions], object]
_TIMEOUT = 30.0


class Library:
    """An agent made of dynpin and a library.

    Args:
        get: how the library gets a URL.
    """

    def __init__(self, get: Get) -> None:
        self._get = get

    def __call__(self, task: Task) -> Answer:
        """Do a task, with the store that the task names."""
        with closing(PinStore(task.store, clock=lambda: task.now)) as store, loopback_names():
            return do(task, visit=lambda: self._visit(task, store), forget=store.forget, preload=store.pin)

    def _visit(self, task: Task, store: PinStore) -> Answer:
        context = ssl.create_default_context(cafile=task.ca)
        reports = ReportQueue(store, context=context, background=False)
        options = PinOptions(reporter=reports)
        try:
            self._get(task.url, store, context, options)
        except Exception as error:  # noqa: BLE001 - each library has its own; what is no refusal failed
            violation = pin_violation(error)
            if violation is not None:
                return Answer("refused", str(violation).splitlines()[0])
            return Answer("refused" if _of_tls(error) else "failed", f"{type(error).__name__}: {error}"[:300])
        else:
            return Answer("served")
        finally:
            reports.send()


def _of_tls(error: BaseException | None) -> bool:
    """Whether an error has a TLS certificate failure inside."""
    while error is not None:
        if isinstance(error, ssl.SSLError) or "certificate verify failed" in str(error).lower():
            return True
        error = error.__cause__ or error.__context__
    return False


def _httpx(url: str, store: PinStore, context: ssl.SSLContext, options: PinOptions) -> None:
    """Get the URL with httpx."""
    from dynpin.clientstore.httpx import PinnedClient  # noqa: PLC0415 - this library alone

    with PinnedClient(
        store, verify=context, follow_redirects=True, trust_env=False, timeout=_TIMEOUT, **options
    ) as client:
        client.get(url)


def _requests(url: str, store: PinStore, context: ssl.SSLContext, options: PinOptions) -> None:
    """Get the URL with requests."""
    from dynpin.clientstore.requests import PinnedSession  # noqa: PLC0415

    with PinnedSession(store, context=context, **options) as session:
        session.trust_env = False
        session.get(url, timeout=_TIMEOUT)


def _urllib3(url: str, store: PinStore, context: ssl.SSLContext, options: PinOptions) -> None:
    """Get the URL with urllib3."""
    from dynpin.clientstore.urllib3 import pinned_pool_manager  # noqa: PLC0415

    with pinned_pool_manager(store, ssl_context=context, timeout=_TIMEOUT, **options) as manager:
        manager.request("GET", url, retries=3)


def _aiohttp(url: str, store: PinStore, context: ssl.SSLContext, options: PinOptions) -> None:
    """Get the URL with aiohttp."""
    from dynpin.clientstore.aiohttp import pinned_session  # noqa: PLC0415

    async def get() -> None:
        async with pinned_session(store, ssl=context, **options) as session, session.get(url) as response:
            await response.read()

    asyncio.run(get())


def _http_client(url: str, store: PinStore, context: ssl.SSLContext, options: PinOptions) -> None:
    """Get the URL with http.client, which follows no redirect."""
    import http.client  # noqa: PLC0415

    from dynpin.clientstore.http_client import PinnedHTTPSConnection  # noqa: PLC0415

    place = urlsplit(url)
    host = place.hostname or ""
    connection: http.client.HTTPConnection = (
        PinnedHTTPSConnection(host, place.port, store=store, context=context, timeout=_TIMEOUT, **options)
        if place.scheme == "https"
        else http.client.HTTPConnection(host, place.port, timeout=_TIMEOUT)
    )
    with closing(connection):
        connection.request("GET", place.path)
        connection.getresponse().read()


GETS: Mapping[str, Get] = {
    "httpx": _httpx,
    "requests": _requests,
    "urllib3": _urllib3,
    "aiohttp": _aiohttp,
    "http.client": _http_client,
}
