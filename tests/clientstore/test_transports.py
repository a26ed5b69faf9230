"""The pinned transports of httpx and httpx2: in any client, with every option, and the names in a request."""

from __future__ import annotations

import contextlib
import importlib
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any

import httpx
import httpx2
import pytest
import trustme

from dynpin import PinValidationError, UnenforceableContext
from dynpin.clientstore import pin_violation

from .sites import Proxy, relay
from .socks import SocksServer
from .ways import WAYS, Way, every_way, refused
from .world import HOST, World, leaf_pin

_TIMEOUT = 30.0


class Door:
    """A relay to a port of 127.0.0.1. `greet` speaks first, with the number of the connection; False ends it."""

    def __init__(
        self, listener: socket.socket, port: int, greet: Callable[[socket.socket, int], bool] = lambda *_: True
    ) -> None:
        self.listener, self.port, self.greet = listener, port, greet
        self.connections = 0
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> Door:
        return self

    def __exit__(self, *exc_info: object) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in self._threads:
            thread.join(_TIMEOUT)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            self._threads.append(threading.Thread(target=self._serve, args=(client, self.connections), daemon=True))
            self._threads[-1].start()

    def _serve(self, client: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError), client:
            if self.greet(client, number):
                with socket.create_connection(("127.0.0.1", self.port), timeout=_TIMEOUT) as site:
                    relay(client, site)


# -- in a client of the library's own ---------------------------------------------------------------------------------


@every_way
@pytest.mark.parametrize("option", ["transport", "mounts"])
def test_a_plain_client_with_a_pinned_transport_notes_and_refuses(world: World, way: Way, option: str) -> None:
    def client() -> Any:
        made = way.transport(world)
        return way.plain(**{option: made if option == "transport" else {f"https://{HOST}": made}})

    assert way.visit(client(), world.site.url(HOST)) == [200]
    known = world.store.known_host(HOST)
    assert known is not None
    assert known.pins == world.header.pins
    violation = refused(world, way, client(), world.attacker.url(HOST))
    assert violation.report is not None
    assert violation.report.port == world.attacker.port


@every_way
def test_hooks_that_are_replaced_change_nothing(world: World, way: Way) -> None:
    client = way.client(world)
    client.event_hooks = {"request": [], "response": []}
    assert way.visit(client, world.site.url(HOST)) == [200]
    assert world.store.known_host(HOST) is not None
    client = way.client(world)
    client.event_hooks = {}
    with pytest.raises(UnenforceableContext, match="the URL of the name that TLS shall verify"):
        way.visit(client, world.attacker.url(HOST), extensions={"sni_hostname": "other.test"})
    assert world.attacker.connections == 0


@every_way
def test_a_trace_changes_nothing_of_what_it_is_told(world: World, way: Way) -> None:
    world.pin_site()
    events: list[str] = []

    def trace(event: str, shown: dict[str, Any]) -> None:
        events.append(event)
        if "ssl_context" in shown:
            shown["ssl_context"] = world.plain_context()
        if "request" in shown:
            shown["request"].headers = [(b"Host", b"other.test")]

    async def trace_async(event: str, shown: dict[str, Any]) -> None:
        trace(event, shown)

    extensions = {"trace": trace if way.loop is None else trace_async}
    refused(world, way, way.client(world), world.attacker.url(HOST), extensions=extensions)
    assert way.visit(way.client(world), world.site.url(HOST), extensions=extensions) == [200]
    world.site.wait_idle()
    assert f"Host: {HOST}:{world.site.port}".encode() in world.site.received
    assert "connection.start_tls.started" in events


@every_way
def test_the_audit_mode_lets_through_and_notes_nothing(world: World, way: Way) -> None:
    world.store.pin(HOST, [leaf_pin(world.backup)])
    seen: list[PinValidationError] = []
    client = way.client(world, on_mismatch="report", on_violation=seen.append)
    assert way.visit(client, world.site.url(HOST)) == [200]
    assert len(seen) == 1
    known = world.store.known_host(HOST)
    assert known is not None
    assert known.pins == (leaf_pin(world.backup),)


# -- the options of a transport ---------------------------------------------------------------------------------------


def _but_the_first(client: socket.socket, number: int) -> bool:
    return number > 1


@every_way
def test_retries(world: World, way: Way) -> None:
    with Door(socket.create_server(("127.0.0.1", 0)), world.site.port, _but_the_first) as door:
        url = f"https://{HOST}:{door.listener.getsockname()[1]}/"
        assert way.visit(way.plain(transport=way.transport(world, retries=1)), url) == [200]
        assert door.connections == 2
    assert world.store.known_host(HOST) is not None
    refused(world, way, way.client(world, transport=way.transport(world, retries=1)), world.attacker.url(HOST))
    assert world.attacker.connections == 2


@every_way
def test_a_unix_socket_is_checked_against_the_pins_of_the_url(world: World, way: Way) -> None:
    for server, name in ((world.site, "site"), (world.attacker, "attacker")):
        path = str(world.folder / name)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen()
        with Door(listener, server.port) as door:
            client = way.client(world, transport=way.transport(world, uds=path))
            if server is world.site:
                assert way.visit(client, f"https://{HOST}/") == [200]
                assert world.store.known_host(HOST) is not None
            else:
                refused(world, way, client, f"https://{HOST}/")
            assert door.connections == 1


@every_way
def test_local_address_and_socket_options(world: World, way: Way) -> None:
    seen: list[Any] = []

    def look(response: Any) -> None:
        stream = response.extensions["network_stream"]
        seen.append(stream.get_extra_info("client_addr")[0])
        # trio's socket has one inside.
        option = (socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        seen.append(stream.get_extra_info("socket").getsockopt(*option))

    async def look_async(response: Any) -> None:
        look(response)

    keep_alive = (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    client = way.client(
        world,
        transport=way.transport(world, local_address="127.0.0.7", socket_options=[keep_alive]),
        event_hooks={"response": [look if way.loop is None else look_async]},
    )
    assert way.visit(client, world.site.url(HOST)) == [200]
    assert seen == ["127.0.0.7", 1]
    assert world.store.known_host(HOST) is not None


@every_way
def test_through_socks(world: World, way: Way) -> None:
    with SocksServer() as proxy:
        address = f"socks5://127.0.0.1:{proxy.port}"
        assert way.visit(way.client(world, proxy=address), world.site.url(HOST)) == [200]
        assert world.store.known_host(HOST) is not None
        refused(world, way, way.client(world, proxy=address), world.attacker.url(HOST))
        assert proxy.asked == [HOST, HOST]


@every_way
def test_proxies_of_the_environment_note(world: World, way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    with Proxy() as proxy:
        monkeypatch.setenv("https_proxy", proxy.url.removeprefix("http://"))
        assert way.visit(way.client(world, trust_env=True), world.site.url(HOST)) == [200]
        assert len(proxy.tunnels) == 1
        assert world.store.known_host(HOST) is not None
        refused(world, way, way.client(world, trust_env=True), world.attacker.url(HOST))
        # As in httpx, a transport of one's own is used for everything.
        client = way.client(world, trust_env=True, transport=way.transport(world))
        assert way.visit(client, world.site.url(HOST)) == [200]
        assert len(proxy.tunnels) == 2


@pytest.mark.parametrize("library", [httpx, httpx2], ids=lambda library: library.__name__)
@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"http_proxy": "a.test:1", "https_proxy": "https://b.test:2", "all_proxy": "socks5://c.test"},
        {"https_proxy": "b.test", "no_proxy": "*"},
        {"https_proxy": "b.test", "no_proxy": "x.test, *"},
        {
            "https_proxy": "b.test",
            "no_proxy": "x.test, .y.test,,LocalHost,10.0.0.1,10.0.0.0/8,::1,http://z.test",
        },
    ],
)
def test_the_proxies_of_the_environment_are_those_that_the_library_sees(
    library: Any, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dynpin.clientstore.transports import proxies_of_the_environment

    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    own = importlib.import_module(f"{library.__name__}._utils")
    assert proxies_of_the_environment() == own.get_environment_proxies()


@every_way
def test_public_roots_hold_for_the_transport_of_a_proxy_too(world: World, way: Way) -> None:
    # An iterator can be read only once; a second transport without any root would take every root for a private one.
    world.store.pin("proxy.test", [leaf_pin(world.backup)])
    roots = (ssl.PEM_cert_to_DER_cert(ca.cert_pem.bytes().decode()) for ca in (world.honest, world.rogue))
    with Proxy(world.honest.issue_cert("proxy.test")) as proxy:
        address = way.library.Proxy(proxy.url, ssl_context=world.plain_context())
        client = way.client(world, proxy=address, private_roots="bypass", public_roots=roots)
        with pytest.raises(way.library.ConnectError) as caught:
            way.visit(client, world.site.url(HOST))
        assert str(pin_violation(caught.value)).startswith("proxy.test shows none of its pinned keys")
        assert proxy.tunnels == []


# -- the names of a request -------------------------------------------------------------------------------------------


@every_way
def test_sni_hostname_does_not_reach_the_tls_of_a_proxy(world: World, way: Way, honest: trustme.CA) -> None:
    # httpcore would make the proxy show a certificate for the site's name, and check it against the site's pins.
    certificate = honest.issue_cert("proxy.test")
    world.store.pin("proxy.test", [leaf_pin(certificate)])
    with Proxy(certificate) as proxy:
        client = way.client(world, proxy=way.library.Proxy(proxy.url, ssl_context=world.plain_context()))
        assert way.visit(client, world.site.url(HOST), extensions={"sni_hostname": HOST}) == [200]
        assert len(proxy.tunnels) == 1


@every_way
@pytest.mark.parametrize(
    "options",
    [
        {"headers": {"Host": "other.test"}},
        {"method": "CONNECT"},
        {"target": "bank.test:443"},
        {"target": "https://other.test:PORT/"},
        {"target": "https://bank.test:1/"},
        {"target": "http://bank.test:PORT/"},
    ],
    ids=["host", "connect", "target", "of another name", "of another port", "of another scheme"],
)
def test_a_request_for_another_name_notes_nothing(world: World, way: Way, options: dict[str, Any]) -> None:
    options = dict(options)
    if "target" in options:
        target = options.pop("target").replace("PORT", str(world.site.port))
        options["extensions"] = {"target": target.encode()}
    assert way.visit(way.client(world), world.site.url(HOST), **options) == [200]
    assert len(world.store) == 0
    ordinary: dict[str, Any] = {"headers": {"Host": f"{HOST}:443"}, "extensions": {"target": b"/another/path"}}
    assert way.visit(way.client(world), world.site.url(HOST), **ordinary) == [200]
    assert len(world.store) == 1


@pytest.mark.parametrize("way", [way for way in WAYS if way.library is httpx2 and way.loop != "trio"], ids=str)
def test_websockets_of_httpx2_are_pinned_too(world: World, way: Way) -> None:
    from httpx2.websockets import WebSocketUpgradeError

    def connect(url: str) -> None:
        client = way.client(world)

        async def main() -> None:
            async with client, client.websocket(url):
                pass

        if way.loop is None:
            with client, client.websocket(url):
                pass
        else:
            way.run(main)

    with pytest.raises(WebSocketUpgradeError):  # it is not a WebSocket server, and has been asked
        connect(world.site.url(HOST).replace("https:", "wss:"))
    assert world.store.known_host(HOST) is not None
    with pytest.raises(httpx2.ConnectError) as caught:
        connect(world.attacker.url(HOST).replace("https:", "wss:"))
    assert pin_violation(caught.value) is not None
    world.attacker.wait_idle()
    assert world.attacker.application_bytes == 0
