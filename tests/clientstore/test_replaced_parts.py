"""Parts of a client that its user replaces: an adapter, or a handler beside dynpin's, does not avoid the pins."""

from __future__ import annotations

import contextlib
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
import urllib3

from dynpin import UnenforceableContext
from dynpin.clientstore import PinStore, pin_violation
from dynpin.clientstore.http_client import PinnedHTTPSConnection, PinnedHTTPSHandler
from dynpin.clientstore.requests import PinnedAdapter, PinnedSession
from dynpin.clientstore.urllib3 import pinned_pool_manager

from .apart import assert_unheard
from .sites import Proxy
from .world import HOST, World


def _in_the_attribute(session: PinnedSession) -> None:
    session.adapters["https://"] = requests.adapters.HTTPAdapter()


def _mounted_after_the_pinned_one_was_removed(session: PinnedSession) -> None:
    session.adapters.pop("https://")
    session.mount("https://", requests.adapters.HTTPAdapter())


def _for_all_urls(session: PinnedSession) -> None:
    session.adapters.clear()
    session.mount("", requests.adapters.HTTPAdapter())


def _from_a_method_of_its_own(session: PinnedSession) -> None:
    setattr(session, "get_adapter", lambda url: requests.adapters.HTTPAdapter())  # noqa: B010 - a method


@pytest.mark.parametrize(
    "replace",
    [_in_the_attribute, _mounted_after_the_pinned_one_was_removed, _for_all_urls, _from_a_method_of_its_own],
    ids=lambda replace: replace.__name__,
)
def test_requests_an_adapter_without_pins_is_refused_however_it_got_there(
    world: World, replace: Callable[[PinnedSession], None]
) -> None:
    world.pin_site()
    with PinnedSession(world.store) as session:
        replace(session)
        with pytest.raises(UnenforceableContext, match=r"a HTTPAdapter for https://.*mount a PinnedAdapter"):
            session.get(world.attacker.url(HOST), verify=str(world.roots_file()))
    world.attacker.wait_idle()
    assert world.attacker.handshakes == 0


class _MakesItsManager(PinnedAdapter):
    """As the adapters of requests-toolbelt do, mixed with a pinned one."""

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **options: Any) -> None:
        self.poolmanager = urllib3.PoolManager(num_pools=connections, maxsize=maxsize, block=block, **options)


class _SetsItsManager(PinnedAdapter):
    def __init__(self, store: PinStore) -> None:
        super().__init__(store)
        self.poolmanager = urllib3.PoolManager()


class _MakesItsPool(PinnedAdapter):
    def get_connection_with_tls_context(self, request: Any, verify: Any, *args: Any, **options: Any) -> Any:
        target = urlsplit(request.url)
        return urllib3.HTTPSConnectionPool(target.hostname, target.port, ca_certs=verify)


class _MakesItsProxyManager(PinnedAdapter):
    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        return urllib3.ProxyManager(proxy)


@pytest.mark.parametrize(
    ("adapter", "is_pinned"),
    [(_MakesItsManager, True), (_SetsItsManager, True), (_MakesItsPool, False), (_MakesItsProxyManager, False)],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_requests_an_adapter_that_makes_a_part_itself_is_pinned_or_refused(
    world: World, adapter: type[PinnedAdapter], is_pinned: bool
) -> None:
    world.site.headers = [("Public-Key-Pins", str(world.header))]
    options: dict[str, Any] = {"verify": str(world.roots_file())}
    with Proxy() as proxy, PinnedSession(world.store) as session:
        session.trust_env = False
        if adapter is _MakesItsProxyManager:
            options["proxies"] = {"https": proxy.url}
        session.mount("https://", adapter(world.store))
        if is_pinned:
            assert session.get(world.site.url(HOST), **options).status_code == 200
            assert world.store.known_host(HOST) is not None
        world.pin_site()
        expected = requests.exceptions.SSLError if is_pinned else UnenforceableContext
        with pytest.raises(expected) as caught:
            session.get(world.attacker.url(HOST), **options)
    assert is_pinned or "let the methods of PinnedAdapter make" in str(caught.value)
    world.attacker.wait_idle()
    assert world.attacker.application_bytes == 0


@pytest.mark.parametrize("proxied", [False, True])
def test_urllib3_pools_of_another_class_are_refused(world: World, proxied: bool) -> None:
    world.pin_site()
    with (
        Proxy() as proxy,
        pinned_pool_manager(
            world.store, ca_certs=str(world.roots_file()), proxy_url=proxy.url if proxied else None
        ) as manager,
    ):
        manager.pool_classes_by_scheme = {"https": urllib3.HTTPSConnectionPool}
        with pytest.raises(UnenforceableContext, match="a HTTPSConnectionPool would connect without checking the pins"):
            manager.request("GET", world.attacker.url(HOST))
    world.attacker.wait_idle()
    assert world.attacker.connections == 0


def _by_urllib3(world: World, url: str, keys: dict[str, Any]) -> None:
    with pinned_pool_manager(world.store, ca_certs=str(world.roots_file()), retries=False) as manager:
        manager.key_fn_by_scheme = {**manager.key_fn_by_scheme, **keys}
        manager.connection_from_host("other.test", urlsplit(url).port, "https")
        manager.request("GET", url)


def _by_requests(world: World, url: str, keys: dict[str, Any]) -> None:
    with PinnedSession(world.store) as session:
        adapter = session.get_adapter(url)
        assert isinstance(adapter, PinnedAdapter)
        manager = adapter.poolmanager
        manager.key_fn_by_scheme = {**manager.key_fn_by_scheme, **keys}
        manager.connection_from_host("other.test", urlsplit(url).port, "https")
        session.get(url, verify=str(world.roots_file()))


@pytest.mark.parametrize("visit", [_by_urllib3, _by_requests], ids=lambda visit: visit.__name__)
@pytest.mark.parametrize(
    ("host", "asked", "keys"),
    # Both libraries write the last Σ of a word as ς, and UTS 46 writes σ.
    [("ΒΌΛΟΣ.test", "xn--nxasmq6b.test", {}), (HOST, HOST, {"https": lambda _: ("one pool for all",)})],
    ids=["capital sigma", "one pool"],
)
def test_a_request_that_the_library_sends_to_another_host_is_refused(
    world: World, visit: Callable[..., None], host: str, asked: str, keys: dict[str, Any]
) -> None:
    world.pin_site(asked)
    with pytest.raises((urllib3.exceptions.SSLError, requests.exceptions.SSLError)) as caught:
        visit(world, world.attacker.url(host), keys)
    violation = pin_violation(caught.value)
    assert violation is not None
    assert f"{asked} is pinned" in str(violation)
    assert world.attacker.connections == 0


def test_http_client_an_answer_on_another_socket_is_not_noted(world: World) -> None:
    world.site.headers = [("Public-Key-Pins", str(world.header))]
    connection = PinnedHTTPSConnection(HOST, world.site.port, store=world.store, context=world.plain_context())
    with contextlib.closing(connection):
        connection.request("GET", "/")
        checked, raw = connection.sock, socket.create_connection(("127.0.0.1", world.site.port), timeout=60)
        with checked, world.plain_context().wrap_socket(raw, server_hostname=HOST) as own:
            own.sendall(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
            connection.sock = own
            assert connection.getresponse().status == 200
    assert connection.noting is not None
    assert connection.noting.outcome == "ignored"
    assert not world.store.hosts()


@pytest.mark.parametrize("options", [{}, {"proxies": {}}, {"proxies": None}])
def test_requests_a_request_without_a_proxy_may_use_a_plain_adapter(world: World, options: dict[str, None]) -> None:
    with PinnedSession(world.store) as session:
        session.mount("http://", requests.adapters.HTTPAdapter())
        session.proxies = {"http": "https://proxy.test:1"}
        request = requests.Request("GET", "http://127.0.0.1:1/").prepare()
        # Like requests itself: a request's own proxies, even none, replace those of the session.
        expected = requests.exceptions.ConnectionError if options else UnenforceableContext
        with pytest.raises(expected):
            session.send(request, **options)


@pytest.mark.parametrize("pinned_first", [True, False])
def test_the_handler_with_pins_opens_the_url_even_beside_another(world: World, pinned_first: bool) -> None:
    world.pin_site()
    handlers = [
        PinnedHTTPSHandler(world.store, context=world.plain_context()),
        urllib.request.HTTPSHandler(context=world.plain_context()),
    ]
    opener = urllib.request.build_opener(*handlers[:: 1 if pinned_first else -1], urllib.request.ProxyHandler({}))
    with pytest.raises(urllib.error.URLError) as caught:
        opener.open(world.attacker.url(HOST), timeout=60)
    assert_unheard(world, caught.value)
