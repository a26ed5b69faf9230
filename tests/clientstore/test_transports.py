"""The transports of httpx and httpx2 that are pinned: in any client, with every option, and beside test doubles."""

from __future__ import annotations

import contextlib
import importlib
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import httpx
import httpx2
import pytest
import respx
import trustme
from pytest_httpx import HTTPXMock

from dynpin import PinValidationError, PublicKeyPins, UnenforceableContext
from dynpin.clientstore import PinStore, pin_violation
from dynpin.clientstore import httpx as pinned_httpx
from dynpin.clientstore import httpx2 as pinned_httpx2

from .held import open_files, write_lock_held
from .inbox import Inbox
from .sites import Proxy, relay
from .socks import SocksServer
from .world import HOST, World, leaf_pin

# It has no types.
vcr: Any = importlib.import_module("vcr")

_TIMEOUT = 30.0


@dataclass(frozen=True)
class Way:
    """One library on one kind of loop: what it has, and how a client of it is run."""

    library: Any
    pinned: Any
    loop: str | None

    def __str__(self) -> str:
        return f"{self.library.__name__}-{self.loop or 'sync'}"

    def of(self, module: Any, name: str) -> Any:
        """The class of a module, in its synchronous or its asynchronous form."""
        if self.loop is not None:
            name = name.replace("Pinned", "PinnedAsync") if name.startswith("Pinned") else f"Async{name}"
        return getattr(module, name)

    def transport(self, world: World, **options: Any) -> Any:
        made = {"verify": world.plain_context(), **options}
        return self.of(self.pinned, "PinnedTransport")(made.pop("store", world.store), **made)

    def plain(self, **options: Any) -> Any:
        """A client of the library's own."""
        return self.of(self.library, "Client")(trust_env=False, **options)

    def client(self, world: World, **options: Any) -> Any:
        """A pinned client."""
        options = {"verify": world.plain_context(), "trust_env": False, **options}
        return self.of(self.pinned, "PinnedClient")(options.pop("store", world.store), **options)

    def visit(self, client: Any, *urls: str, method: str = "GET", **options: Any) -> list[int]:
        """Request each URL, one after the other, and close the client."""
        if self.loop is None:
            with client:
                return [client.request(method, url, **options).status_code for url in urls]

        async def main() -> list[int]:
            async with client:
                return [(await client.request(method, url, **options)).status_code for url in urls]

        found: list[int] = self.run(main)
        return found

    def run(self, main: Callable[[], Awaitable[Any]]) -> Any:
        assert self.loop is not None
        return anyio.run(main, backend=self.loop)


WAYS = [
    Way(library, pinned, loop)
    for library, pinned in ((httpx, pinned_httpx), (httpx2, pinned_httpx2))
    for loop in (None, "asyncio", "trio")
]
every_way = pytest.mark.parametrize("way", WAYS, ids=str)
every_loop = pytest.mark.parametrize("way", [way for way in WAYS if way.loop], ids=str)
without_loop = pytest.mark.parametrize("way", [way for way in WAYS if way.loop is None], ids=str)


def refused(world: World, way: Way, client: Any, url: str, **options: Any) -> PinValidationError:
    """The violation of a visit, of which the attacker must not have read a byte."""
    with pytest.raises(way.library.ConnectError) as caught:
        way.visit(client, url, **options)
    violation = pin_violation(caught.value)
    assert violation is not None
    world.attacker.wait_idle()
    assert world.attacker.application_bytes == 0
    return violation


class Door:
    """Another way in to a port of 127.0.0.1. `greet` speaks first, with the number of the connection; False ends it."""

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
def test_a_unix_socket_is_held_against_the_pins_of_the_url(world: World, way: Way) -> None:
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
        # As in httpx, a transport of one's own is the one for all.
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
    # An iterator gives them once; a second transport without any would take every root for a private one.
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
    # httpcore would have the proxy show a certificate for the site's name, and hold that against the site's pins.
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
def test_what_is_asked_for_another_name_notes_nothing(world: World, way: Way, options: dict[str, Any]) -> None:
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

    with pytest.raises(WebSocketUpgradeError):  # it is no WebSocket server, and has been asked
        connect(world.site.url(HOST).replace("https:", "wss:"))
    assert world.store.known_host(HOST) is not None
    with pytest.raises(httpx2.ConnectError) as caught:
        connect(world.attacker.url(HOST).replace("https:", "wss:"))
    assert pin_violation(caught.value) is not None
    world.attacker.wait_idle()
    assert world.attacker.application_bytes == 0


# -- transports of another kind ---------------------------------------------------------------------------------------


def _double(way: Way) -> Any:
    """A transport that is a test double in memory."""
    return way.library.MockTransport(lambda request: way.library.Response(204))


def _custom(way: Way, inner: Any = None) -> Any:
    """A transport of the user's own: a test double; or one that hands on to another one, as those that retry do."""
    bases = (way.library.BaseTransport,) if way.loop is None else (way.library.AsyncBaseTransport,)

    class Custom(*bases):  # type: ignore[misc]
        def __init__(self) -> None:
            self.inner = inner
            self.closed = False

        def handle_request(self, request: Any) -> Any:
            return inner.handle_request(request) if inner else way.library.Response(204)

        async def handle_async_request(self, request: Any) -> Any:
            return await inner.handle_async_request(request) if inner else way.library.Response(204)

        def close(self) -> None:
            self.closed = True
            if inner:
                inner.close()

        async def aclose(self) -> None:
            self.closed = True
            if inner:
                await inner.aclose()

    return Custom()


async def _asgi(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


def _wsgi(environ: Any, start_response: Any) -> list[bytes]:
    start_response("204 No Content", [])
    return []


def _framework(way: Way) -> Any:
    return way.library.WSGITransport(_wsgi) if way.loop is None else way.library.ASGITransport(_asgi)


@every_way
@pytest.mark.parametrize("make", [_double, _framework], ids=lambda make: make.__name__)
def test_doubles_in_memory_are_taken_as_they_are(
    world: World, way: Way, make: Callable[[Way], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    world.pin_site()
    url = f"https://{HOST}/"
    assert way.visit(way.client(world, transport=make(way)), url) == [204]
    assert way.visit(way.client(world, mounts={"https://": make(way)}), url) == [204]
    # Nor is the user's own store opened for such a client.
    file = world.folder / "own" / "pins.sqlite"
    monkeypatch.setenv("DYNPIN_STORE", str(file))
    assert way.visit(way.client(world, store=None, transport=make(way)), url) == [204]
    assert not file.exists()


@every_way
def test_a_transport_of_another_kind_reaches_all_but_pinned_hosts(world: World, way: Way) -> None:
    world.pin_site()
    custom = _custom(way)
    assert way.visit(way.client(world, transport=custom), "https://other.test/", f"http://{HOST}/") == [204, 204]
    assert custom.closed
    for option in ({"transport": _custom(way)}, {"mounts": {"https://": _custom(way)}}):
        with pytest.raises(
            way.library.ConnectError, match=r"Custom shows no TLS connection.*PinnedTransport"
        ) as caught:
            way.visit(way.client(world, **option), f"https://{HOST}/")
        assert pin_violation(caught.value) is not None
    client = way.client(world, transport=_custom(way), on_mismatch="report")
    assert way.visit(client, f"https://{HOST}/") == [204]


@every_way
def test_a_transport_around_another_one_is_as_good_as_that(world: World, way: Way) -> None:
    around = _custom(way, way.transport(world))
    assert way.visit(way.client(world, transport=around), world.site.url(HOST)) == [200]
    assert world.store.known_host(HOST) is not None
    refused(world, way, way.client(world, transport=_custom(way, way.transport(world))), world.attacker.url(HOST))
    with pytest.raises(UnenforceableContext, match=r"give a .*Pinned\w*Transport"):
        way.client(world, transport=_custom(way, way.of(way.library, "HTTPTransport")()))
    with pytest.raises(way.library.ConnectError, match="shows no TLS connection"):
        way.visit(way.client(world, transport=_custom(way, _custom(way))), world.site.url(HOST))


@every_way
@pytest.mark.parametrize("option", ["transport", "mounts"])
def test_a_transport_of_the_librarys_own_is_refused(world: World, way: Way, option: str) -> None:
    plain = way.of(way.library, "HTTPTransport")(verify=world.plain_context())
    named = rf"{option}= has a \w*HTTPTransport.*dynpin\.clientstore\.{way.library.__name__}\.Pinned\w*Transport"
    with pytest.raises(UnenforceableContext, match=named):
        way.client(world, **{option: plain if option == "transport" else {"https://": plain}})


@every_way
def test_a_pinned_transport_has_its_own_store_and_options(world: World, way: Way) -> None:
    with PinStore.private() as other:
        for options in ({"store": other}, {"store": None, "on_mismatch": "report"}):
            with pytest.raises(TypeError, match=r"transport= has a store .* of its own"):
                way.client(world, transport=way.transport(world), **options)
        # The proxy's transport takes the store of the pinned one.
        with Proxy() as proxy:
            client = way.client(world, store=None, transport=way.transport(world), proxy=proxy.url)
            assert way.visit(client, world.site.url(HOST)) == [200]
        assert world.store.known_host(HOST) is not None


# -- doubles that patch the library -----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [way for way in WAYS if way.library is httpx and way.loop != "trio"], ids=str)
@pytest.mark.parametrize("using", ["httpcore", "httpx"])
def test_respx_answers_for_clients_made_before_and_inside(world: World, way: Way, using: str) -> None:
    world.pin_site()
    url = world.attacker.url(HOST)
    before = way.client(world)
    with respx.mock(using=using) as router:
        router.get(url).respond(204)
        for client in (before, way.client(world), way.client(world, transport=way.transport(world))):
            assert way.visit(client, url) == [204]
    assert world.attacker.connections == 0
    refused(world, way, way.client(world), url)


@pytest.mark.parametrize("way", [way for way in WAYS if way.library is httpx and way.loop != "trio"], ids=str)
@pytest.mark.httpx_mock(assert_all_requests_were_expected=False)
def test_pytest_httpx_answers(world: World, way: Way, httpx_mock: HTTPXMock) -> None:
    world.pin_site()
    url = world.attacker.url(HOST)
    httpx_mock.add_response(url=url, status_code=204, is_reusable=True)
    for client in (way.client(world), way.client(world, transport=way.transport(world))):
        assert way.visit(client, url) == [204]
    with pytest.raises(httpx.TimeoutException):
        way.visit(way.client(world), world.site.url(HOST))
    assert world.attacker.connections == world.site.connections == 0


@pytest.mark.parametrize("way", [way for way in WAYS if way.loop != "trio"], ids=str)
def test_vcrpy_records_and_replays(world: World, way: Way) -> None:
    cassette, url = str(world.folder / "cassette.yaml"), world.site.url(HOST)
    with vcr.use_cassette(cassette, record_mode="once"):
        assert way.visit(way.client(world), url) == [200]
    connections = world.site.connections
    before = way.client(world)
    with vcr.use_cassette(cassette, record_mode="none", allow_playback_repeats=True):
        for client in (before, way.client(world)):
            assert way.visit(client, url) == [200]
        with pytest.raises(vcr.errors.CannotOverwriteExistingCassetteException):
            way.visit(way.client(world), world.attacker.url(HOST))
    assert (world.site.connections, world.attacker.connections) == (connections, 0)
    # What is recorded comes over a real connection, which is held against the pins.
    world.pin_site()
    with vcr.use_cassette(str(world.folder / "another.yaml"), record_mode="all"):
        refused(world, way, way.client(world), world.attacker.url(HOST))


# -- the event loop ---------------------------------------------------------------------------------------------------

# More steps of the event loop than a request takes between its response and the end of its noting.
_STEPS = 500


async def _steps_then(release: Callable[[], None], begin: anyio.Event | None = None) -> None:
    if begin is not None:
        await begin.wait()
    for _ in range(_STEPS):
        await anyio.lowlevel.checkpoint()
    release()


def _get_while_the_lock_is_held(world: World, way: Way) -> None:
    """The lock is held from before the request until the loop has gone on for a while after the response."""

    async def main() -> None:
        answered = anyio.Event()

        async def trace(event: str, info: object) -> None:
            if event == "http11.receive_response_headers.complete":
                answered.set()

        async with way.client(world) as client, anyio.create_task_group() as group:
            group.start_soon(_steps_then, release, answered)
            assert (await client.get(world.site.url(HOST), extensions={"trace": trace})).status_code == 200

    with write_lock_held(world.store.path) as release:
        way.run(main)


@every_loop
def test_a_noting_that_waits_for_the_lock_does_not_stop_the_loop(world: World, way: Way) -> None:
    _get_while_the_lock_is_held(world, way)
    # If the loop had stood still, nobody would have let go of the lock, and the noting would have been given up.
    assert world.store.known_host(HOST) is not None


@every_loop
def test_a_report_that_waits_for_the_lock_does_not_stop_the_loop(world: World, way: Way) -> None:
    with Inbox() as inbox:
        report_uri, pins = f"http://reports.test:{inbox.port}/", (leaf_pin(world.stolen_name), leaf_pin(world.backup))
        policy = PublicKeyPins(pins, max_age=None, report_uri=report_uri, report_only=True)
        world.site.headers = [("Public-Key-Pins-Report-Only", str(policy))]
        _get_while_the_lock_is_held(world, way)
        assert inbox.next_report()["hostname"] == HOST


@every_loop
def test_a_request_that_is_cancelled_does_not_wait_for_its_noting(
    world: World, way: Way, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with way.client(world, limits=way.library.Limits(max_connections=1)) as client:
            with anyio.CancelScope() as scope:

                async def trace(event: str, info: object) -> None:
                    if event == "http11.receive_response_headers.complete":
                        group.start_soon(_steps_then, scope.cancel)

                async with anyio.create_task_group() as group:
                    await client.get(world.site.url(HOST), extensions={"trace": trace})
            assert scope.cancelled_caught
            assert world.store.known_host(HOST) is None  # it still waits
            release()
            # The one connection of the pool is free again.
            assert (await client.get(world.site.url(HOST), timeout=_TIMEOUT)).status_code == 200

    with write_lock_held(world.store.path) as release:
        way.run(main)
    assert world.store.known_host(HOST) is not None
    assert "could not be noted" not in caplog.text  # nobody has waited until it was given up


@every_loop
def test_a_transport_that_is_closed_does_not_stop_the_loop(
    world: World, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DYNPIN_STORE", str(world.folder / "own.sqlite"))
    begun, release = threading.Event(), threading.Event()

    def job(connection: object) -> None:
        begun.set()
        release.wait(_TIMEOUT)

    async def main() -> None:
        transport = way.transport(world, store=None)
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.to_thread.run_sync, transport.pin_store.database.write, job)
            while not begun.is_set():
                await anyio.lowlevel.checkpoint()
            group.start_soon(_steps_then, release.set)
            await transport.aclose()  # which waits for the job
            assert release.is_set()

    way.run(main)
    assert open_files("own.sqlite") == []


@every_way
def test_clients_that_are_closed_leave_no_file_open(world: World, way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DYNPIN_STORE", str(world.folder / "own.sqlite"))

    clients = [way.client(world, store=None) for _ in range(30)]
    others = [way.client(world, store=None, transport=_custom(way)) for _ in range(2)]
    clients.append(others[0])
    assert way.visit(others[1], "https://other.test/") == [204]
    assert way.visit(clients[0], world.site.url(HOST)) == [200]
    assert open_files("own.sqlite")

    async def close() -> None:
        for client in clients[1:]:
            await client.aclose()

    if way.loop is None:
        for client in clients[1:]:
            client.close()
    else:
        way.run(close)
    assert open_files("own.sqlite") == []
    with PinStore() as store:
        assert store.known_host(HOST) is not None
