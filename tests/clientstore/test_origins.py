"""What is noted: the fields of the final response to a request for that https origin, and no others."""

from __future__ import annotations

import contextlib
import urllib.request
from collections.abc import Iterator

import pytest
import trustme

from dynpin import PublicKeyPins
from dynpin.clientstore.http_client import PinnedHTTPSConnection, PinnedHTTPSHandler
from dynpin.clientstore.requests import PinnedSession
from dynpin.clientstore.urllib3 import pinned_pool_manager

from .libraries import LIBRARIES, Library
from .sites import Proxy, Site
from .world import HOST, World, leaf_pin

every_library = pytest.mark.parametrize("library", LIBRARIES, ids=str)


class RawSite(Site):
    """Answers with the bytes of the test; PINS in them is replaced by the value of Public-Key-Pins."""

    answer = b""

    def _response(self, request: bytes) -> bytes:
        ((_, value),) = self.headers
        return self.answer.replace(b"PINS", value.encode())


@pytest.fixture
def raw(world: World) -> Iterator[RawSite]:
    with RawSite(world.certificate, headers=world.site.headers) as site:
        yield site


NOT_NOTED = {
    "103": b"HTTP/1.1 103 Early Hints\r\nPublic-Key-Pins: PINS\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "100": b"HTTP/1.1 100 Continue\r\nPublic-Key-Pins: PINS\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "bare CR": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: a\rPublic-Key-Pins: PINS\r\n\r\n",
    "bare CR in the status": b"HTTP/1.1 200 O\rPublic-Key-Pins: PINS\r\nContent-Length: 0\r\n\r\n",
    "trailer": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Public-Key-Pins\r\n\r\n"
        b"0\r\nPublic-Key-Pins: PINS\r\n\r\n"
    ),
}
NOTED = {
    "after 100": (
        b"HTTP/1.1 100 Continue\r\nX: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\nPublic-Key-Pins: PINS\r\n\r\n"
    ),
    "folded": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nPublic-Key-Pins: PINS;\r\n\t\r\n  preload\r\n\r\n",
    "in any case": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\npublic-KEY-pins:PINS\r\n\r\n",
}


# aiohttp leaves the connection to the event loop when it refuses a response.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@every_library
@pytest.mark.parametrize("answer", NOT_NOTED)
def test_not_noted(world: World, raw: RawSite, library: Library, answer: str) -> None:
    raw.answer = NOT_NOTED[answer]
    with contextlib.suppress(Exception):  # some libraries reject such a response
        library.visit(world.store, world.plain_context(), [raw.url(HOST)])
    raw.wait_idle()
    assert b"GET / HTTP/1.1" in raw.received
    assert len(world.store) == 0


@every_library
@pytest.mark.parametrize("answer", NOTED)
def test_noted(world: World, raw: RawSite, library: Library, answer: str) -> None:
    raw.answer = NOTED[answer]
    assert library.visit(world.store, world.plain_context(), [raw.url(HOST)]) == [200]
    known = world.store.known_host(HOST)
    assert known is not None
    assert known.pins == world.header.pins


# -- forwarded by a proxy ---------------------------------------------------------------------------------------------


def _by_http_client(world: World, proxy: Proxy, url: str) -> int:
    connection = PinnedHTTPSConnection("proxy.test", proxy.port, store=world.store, context=world.plain_context())
    try:
        connection.request("GET", url)
        return connection.getresponse().status
    finally:
        connection.close()


def _by_urllib_request(world: World, proxy: Proxy, url: str) -> int:
    handler = PinnedHTTPSHandler(world.store, context=world.plain_context())
    opener = urllib.request.build_opener(handler, urllib.request.ProxyHandler({"http": proxy.url}))
    with opener.open(url, timeout=60) as response:
        return int(response.status)


def _by_urllib3(world: World, proxy: Proxy, url: str) -> int:
    context = world.plain_context()
    with pinned_pool_manager(world.store, proxy_url=proxy.url, proxy_ssl_context=context, retries=False) as manager:
        return manager.request("GET", url).status


def _by_requests(world: World, proxy: Proxy, url: str) -> int:
    with PinnedSession(world.store, context=world.plain_context()) as session:
        session.trust_env = False
        return session.get(url, proxies={"http": proxy.url}, timeout=60).status_code


@pytest.mark.parametrize(
    "visit", [_by_http_client, _by_urllib_request, _by_urllib3, _by_requests], ids=lambda visit: visit.__name__
)
@pytest.mark.parametrize("host", ["plain.test", "proxy.test"])
def test_an_http_site_neither_pins_nor_unpins_the_https_proxy_that_forwards_it(
    world: World, honest: trustme.CA, visit: object, host: str
) -> None:
    certificate = honest.issue_cert("proxy.test")
    pins = (leaf_pin(certificate), leaf_pin(world.backup))
    url = f"http://{host}/"
    assert callable(visit)
    with Proxy(certificate, headers=(("Public-Key-Pins", str(PublicKeyPins(pins, max_age=60))),)) as proxy:
        assert visit(world, proxy, url) == 200
        assert len(world.store) == 0
        world.store.note("proxy.test", str(PublicKeyPins(pins, max_age=60)), pins[:1])
        proxy.headers = (("Public-Key-Pins", "max-age=0"),)
        assert visit(world, proxy, url) == 200
        known = world.store.known_host("proxy.test")
        assert known is not None
        assert known.pins == pins
