"""websockets: the names in a request, proxies for each connection, the event loop, and resources that stay open."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import trustme
from websockets.datastructures import Headers
from websockets.exceptions import InvalidStatus
from websockets.http11 import Response
from websockets.sync import client as sync_client

from dynpin import PinValidationError
from dynpin.clientstore import PinStore
from dynpin.clientstore.websockets import pinned_connect, pinned_connect_sync

from .held import WatchedStore, write_lock_held
from .opened import open_files
from .sites import Proxy, Site
from .test_clients_websockets import websocket_site, without_tickets
from .world import HOST, World, leaf_pin

OTHER = "other.test"
# Before websockets 17.1 connections in threads follow no redirect and do not reconnect.
reconnects = pytest.mark.skipif(not hasattr(sync_client, "reconnect"), reason="this websockets does not reconnect here")


def by_websockets(world: World, uri: str, **options: Any) -> None:
    async def main() -> None:
        async with pinned_connect(uri, **_given(world, uri, options)):
            pass

    asyncio.run(main())


def by_websockets_sync(world: World, uri: str, **options: Any) -> None:
    with pinned_connect_sync(uri, **_given(world, uri, options)):
        pass


def by_iteration_sync(world: World, uri: str, **options: Any) -> None:
    for _ in pinned_connect_sync(uri, legacy=False, **_given(world, uri, options)):
        return


def by_an_attribute(world: World, uri: str, **options: Any) -> None:
    async def main() -> None:
        connecting = pinned_connect(uri, **_given(world, uri, {}))
        for name, value in options.items():
            setattr(connecting, name, value)
        await connecting

    asyncio.run(main())


def _given(world: World, uri: str, options: dict[str, Any]) -> dict[str, Any]:
    context = world.plain_context() if uri.startswith("wss:") else None
    return {"store": world.store, "ssl": context, "open_timeout": 60, **options}


WAYS = [by_websockets, by_websockets_sync]
each = pytest.mark.parametrize("connect", WAYS, ids=lambda way: way.__name__)
Connect = Callable[..., None]


def refused(attempt: Callable[[], object]) -> PinValidationError:
    with pytest.raises(PinValidationError) as caught:
        attempt()
    violation = caught.value
    violation.__traceback__ = None
    del caught
    gc.collect()
    return violation


@pytest.fixture
def attacker(world: World, rogue: trustme.CA) -> Iterator[Site]:
    """An attacker with certificates for all names that TLS may verify; it answers 200."""
    names = (HOST, OTHER, "127.0.0.1", "fass.test", "xn--fa-hia.test")
    certificate = rogue.issue_cert(*names)
    with Site(certificate) as server:
        server.use(without_tickets(certificate))
        yield server


# -- the names in a request -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Names:
    """A request that is meant for `asked` and verified as `verified`."""

    name: str
    uri_host: str
    asked: str
    verified: str
    options: Callable[[Site], dict[str, Any]] = lambda site: {}
    ways: tuple[Connect, ...] = tuple(WAYS)

    def __str__(self) -> str:
        return self.name


def _connected(site: Site) -> dict[str, Any]:
    return {"sock": socket.create_connection(("127.0.0.1", site.port), timeout=60), "proxy": None}


OPTIONS = [
    Names("server_hostname=", HOST, HOST, OTHER, lambda site: {"server_hostname": OTHER}),
    Names("Host field", OTHER, HOST, OTHER, lambda site: {"additional_headers": {"Host": HOST}}),
    Names(
        "Host field among others",
        OTHER,
        HOST,
        OTHER,
        lambda site: {"additional_headers": [("host", OTHER), ("X-A", "b"), ("HOST", f"{HOST.upper()}.:443")]},
    ),
    Names(
        "Host field, set later",
        OTHER,
        HOST,
        OTHER,
        lambda site: {"additional_headers": {"Host": HOST}},
        (by_an_attribute,),
    ),
    Names("IP address", "127.0.0.1", HOST, "127.0.0.1", lambda site: {"additional_headers": {"Host": HOST}}),
    Names("IP address, server_hostname=", "127.0.0.1", HOST, HOST, lambda site: {"server_hostname": HOST}),
    Names("sock=", HOST, HOST, HOST, _connected),
    Names("sock= and server_hostname=", HOST, HOST, OTHER, lambda site: {**_connected(site), "server_hostname": OTHER}),
    Names("host=", HOST, HOST, HOST, lambda site: {"host": "127.0.0.1", "port": site.port, "proxy": None}, (WAYS[0],)),
    Names("address=", HOST, HOST, HOST, lambda site: {"address": ("127.0.0.1", site.port), "proxy": None}, (WAYS[1],)),
    Names("faß", "faß.test", "faß.test", "fass.test"),
    Names("faß, server_hostname=", "faß.test", "faß.test", "fass.test", lambda site: {"server_hostname": "faß.test"}),
    Names("A-label", "xn--fa-hia.test", "faß.test", "xn--fa-hia.test"),
    Names("upper case", "BANK.test", HOST, HOST),
]
TABLE = [
    (names, connect, pinned)
    for names in OPTIONS
    for connect in names.ways
    for pinned in ("asked", "verified", None)
    if pinned != "verified" or names.verified not in (names.asked, "127.0.0.1")
]


@pytest.mark.parametrize(
    ("names", "connect", "pinned"), TABLE, ids=lambda value: getattr(value, "__name__", str(value))
)
def test_a_request_is_checked_against_the_pins_of_each_of_its_names(
    world: World, attacker: Site, names: Names, connect: Connect, pinned: str | None
) -> None:
    if connect is by_websockets_sync and names.name == "address=" and not hasattr(sync_client, "reconnect"):
        pytest.skip("this websockets has no such option")
    if pinned is not None:
        world.store.pin(names.asked if pinned == "asked" else names.verified, world.header.pins)
    uri = f"wss://{names.uri_host}:{attacker.port}/"
    with contextlib.ExitStack() as stack:
        options = names.options(attacker)
        if "sock" in options:
            stack.callback(options["sock"].close)
        if pinned is not None:
            assert "o request was sent" in str(refused(lambda: connect(world, uri, **options)))
        else:
            # So that the zero means something: this is not a WebSocket server, and it got the request.
            with pytest.raises(InvalidStatus, match="HTTP 200"):
                connect(world, uri, **options)
    attacker.wait_idle()
    assert (attacker.application_bytes == 0) == (pinned is not None)


@each
def test_a_response_for_another_name_is_not_noted(world: World, honest: trustme.CA, connect: Connect) -> None:
    certificate = honest.issue_cert(HOST, OTHER)
    world.certificate = certificate
    with websocket_site(world, lambda request: None) as port:
        uri = f"wss://{OTHER}:{port}/"
        connect(world, uri, server_hostname=HOST)
        connect(world, uri, additional_headers={"Host": HOST})
        assert len(world.store) == 0
        connect(world, uri)
    assert [entry.host for entry in world.store.hosts()] == [OTHER]


@each
def test_in_the_audit_mode_nothing_is_refused_and_nothing_noted(world: World, attacker: Site, connect: Connect) -> None:
    world.pin_site()
    seen: list[PinValidationError] = []
    attacker.headers = world.site.headers
    for options in ({}, {"server_hostname": OTHER}):
        with pytest.raises(InvalidStatus, match="HTTP 200"):
            connect(
                world,
                f"wss://{HOST}:{attacker.port}/",
                on_mismatch="report",
                on_violation=seen.append,
                **options,
            )
    assert len(seen) == 2
    assert [(entry.host, entry.source) for entry in world.store.hosts()] == [(HOST, "static")]


# -- proxies, decided for each connection -----------------------------------------------------------------------------


@pytest.fixture
def roots(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every context trust both authorities, and remove proxies from the environment."""
    monkeypatch.setenv("SSL_CERT_FILE", str(world.roots_file()))
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.usefixtures("roots")
@pytest.mark.parametrize("connect", [by_websockets, pytest.param(by_websockets_sync, marks=reconnects)])
def test_a_redirect_uses_a_proxy_that_is_checked_against_its_pins(
    world: World, rogue: trustme.CA, monkeypatch: pytest.MonkeyPatch, connect: Connect
) -> None:
    world.store.pin("proxy.test", world.header.pins)
    response = Response(302, "Found", Headers({"Location": f"wss://{HOST}:{world.site.port}/", "Content-Length": "0"}))
    world.certificate = world.honest.issue_cert(OTHER)
    with Proxy(rogue.issue_cert("proxy.test")) as proxy, websocket_site(world, lambda request: response) as port:
        monkeypatch.setenv("https_proxy", proxy.url.replace("https://", "https://user:secret@"))
        monkeypatch.setenv("no_proxy", OTHER)
        violation = refused(lambda: connect(world, f"wss://{OTHER}:{port}/"))
        assert proxy.requests == 0
    assert "proxy.test" in str(violation)


@pytest.mark.usefixtures("roots")
@pytest.mark.parametrize("threads", [False, pytest.param(True, marks=reconnects)], ids=["asyncio", "threads"])
def test_each_reconnection_is_checked_again(
    world: World, rogue: trustme.CA, monkeypatch: pytest.MonkeyPatch, threads: bool
) -> None:
    certificate = world.honest.issue_cert("proxy.test")
    world.store.pin("proxy.test", [leaf_pin(certificate)])
    rounds: list[int] = []

    def next_round() -> None:
        """Through the genuine proxy, then without one, then through an attacker instead of the proxy."""
        rounds.append(len(proxy.tunnels))
        if len(rounds) == 1:
            monkeypatch.setenv("https_proxy", "")
        else:
            monkeypatch.setenv("https_proxy", false.url)

    async def main() -> None:
        async for _ in pinned_connect(uri, **_given(world, uri, {})):
            next_round()

    def in_threads() -> None:
        for _ in pinned_connect_sync(uri, legacy=False, **_given(world, uri, {})):
            next_round()

    with (
        Proxy(certificate) as proxy,
        Proxy(rogue.issue_cert("proxy.test")) as false,
        websocket_site(world, lambda request: None) as port,
    ):
        uri = f"wss://{HOST}:{port}/"
        monkeypatch.setenv("https_proxy", proxy.url)
        violation = refused(in_threads if threads else lambda: asyncio.run(main()))
        assert (rounds, len(proxy.tunnels), false.requests) == ([1, 1], 1, 0)
    assert "proxy.test" in str(violation)


@pytest.mark.usefixtures("roots")
@each
@pytest.mark.parametrize("pinned", ["proxy.test", OTHER])
def test_a_proxy_is_checked_for_each_of_its_names(
    world: World, rogue: trustme.CA, connect: Connect, pinned: str
) -> None:
    world.store.pin(pinned, world.header.pins)
    with Proxy(rogue.issue_cert("proxy.test", OTHER)) as proxy:
        uri = f"wss://{HOST}:{world.site.port}/"
        refused(lambda: connect(world, uri, proxy=proxy.url, proxy_server_hostname=OTHER))
        assert proxy.requests == 0


@pytest.mark.usefixtures("roots")
@each
def test_ws_through_an_https_proxy_is_checked_against_the_proxys_pins(
    world: World, rogue: trustme.CA, connect: Connect
) -> None:
    world.store.pin("proxy.test", world.header.pins)
    with Proxy(rogue.issue_cert("proxy.test")) as proxy, websocket_site(world, lambda request: None, tls=False) as port:
        uri = f"ws://{HOST}:{port}/"
        refused(lambda: connect(world, uri, proxy=proxy.url))
        assert proxy.requests == 0
        world.store.forget("proxy.test")
        connect(world, uri, proxy=proxy.url)
        assert proxy.tunnels == [f"{HOST}:{port}"]
    assert len(world.store) == 0


@reconnects
def test_a_redirect_of_the_connection_of_threads_is_checked(world: World) -> None:
    world.pin_site()
    target = f"wss://{HOST}:{world.attacker.port}/"
    response = Response(302, "Found", Headers({"Location": target, "Content-Length": "0"}))
    with websocket_site(world, lambda request: response) as port:
        violation = refused(lambda: by_websockets_sync(world, f"wss://{HOST}:{port}/", proxy=None))
    assert violation.report is not None
    assert violation.report.port == world.attacker.port
    world.attacker.wait_idle()
    assert world.attacker.application_bytes == 0


@reconnects
def test_a_refusal_ends_the_loop_of_threads_that_reconnects(world: World) -> None:
    world.pin_site()
    again: dict[str, Any] = {"reconnect_delays": lambda: pytest.fail("it connects again")}
    refused(lambda: by_iteration_sync(world, f"wss://{HOST}:{world.attacker.port}/", proxy=None, **again))
    world.attacker.wait_idle()
    assert (world.attacker.connections, world.attacker.application_bytes) == (1, 0)


# -- the event loop, and resources that stay open ---------------------------------------------------------------------


@pytest.mark.parametrize("status", [101, 403])
def test_the_loop_goes_on_while_a_noting_waits_for_the_lock(world: World, status: int) -> None:
    fields = Headers({"Public-Key-Pins": str(world.header), "Content-Length": "0"})
    response = Response(status, "", fields) if status != 101 else None

    async def connect() -> None:
        async with pinned_connect(f"wss://{HOST}:{port}/", store, ssl=world.plain_context(), proxy=None):
            pass

    async def main() -> int:
        request = asyncio.create_task(connect())
        steps = await store.steps_while_it_waits(request, release)
        with contextlib.suppress(InvalidStatus):
            await request
        return steps

    with (
        websocket_site(world, lambda request: response) as port,
        WatchedStore(world.folder / "watched") as store,
        write_lock_held(store.path) as release,
    ):
        assert asyncio.run(main()) == 200


@pytest.mark.parametrize("threads", [False, True], ids=["asyncio", "threads"])
def test_connections_that_are_closed_leave_no_file_open(
    world: World, monkeypatch: pytest.MonkeyPatch, threads: bool
) -> None:
    monkeypatch.setenv("DYNPIN_STORE", str(world.folder / "own.sqlite"))
    kept: list[object] = []

    async def main() -> None:
        for _ in range(30):
            connection = await pinned_connect(uri, ssl=world.plain_context(), proxy=None)
            kept.append(connection)
            assert open_files(world.folder / "own.sqlite")
            await connection.close()
        assert open_files(world.folder / "own.sqlite") == []
        refusing = pinned_connect(f"wss://{HOST}:{world.attacker.port}/", ssl=world.plain_context(), proxy=None)
        with pytest.raises(PinValidationError):
            await refusing
        kept.append(refusing)

    def in_threads() -> None:
        for _ in range(30):
            with pinned_connect_sync(uri, ssl=world.plain_context(), proxy=None) as connection:
                kept.append(connection)
                assert open_files(world.folder / "own.sqlite")
        assert open_files(world.folder / "own.sqlite") == []
        with pytest.raises(PinValidationError):
            by_websockets_sync(world, f"wss://{HOST}:{world.attacker.port}/", store=None, proxy=None)

    with websocket_site(world, lambda request: None) as port:
        uri = f"wss://{HOST}:{port}/"
        in_threads() if threads else asyncio.run(main())
    # A connection that fails is closed on a thread, which has ended with the loop.
    assert open_files(world.folder / "own.sqlite") == []
    with PinStore() as store:
        assert store.known_host(HOST) is not None


def test_a_connection_refers_to_itself_nowhere(world: World) -> None:
    # Otherwise each one would be left to the garbage collector, together with its store.
    made = pinned_connect(f"wss://{HOST}:1/", world.store)
    gone = weakref.ref(made)
    gc.disable()
    try:
        del made
        assert gone() is None
    finally:
        gc.enable()
