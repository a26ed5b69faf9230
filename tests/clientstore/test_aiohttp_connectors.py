"""aiohttp: other connectors, test doubles, the event loop, and resources that stay open."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import aiohttp
import aiohttp_socks
import pytest
import trustme
import vcr  # type: ignore[import-untyped]
import vcr.errors  # type: ignore[import-untyped]
from aioresponses import aioresponses

from dynpin import PinValidationError, UnenforceableContext
from dynpin.clientstore import PinStore
from dynpin.clientstore.aiohttp import (
    PinnedConnector,
    PinnedConnectorMixin,
    pinned_session,
)

from .aiohttp_visits import OTHER, attacker_of_many_names, get, refused
from .held import WatchedStore, write_lock_held
from .libraries import Loopback, through_a_proxy
from .opened import open_files
from .sites import Proxy, Site
from .socks import SocksServer
from .world import HOST, World, leaf_pin

pytestmark = through_a_proxy


@pytest.fixture
def attacker(world: World, rogue: trustme.CA) -> Iterator[Site]:
    with attacker_of_many_names(rogue) as server:
        yield server


# -- other connectors -------------------------------------------------------------------------------------------------


class SocksConnector(PinnedConnectorMixin, aiohttp_socks.ProxyConnector):
    pass


@contextlib.asynccontextmanager
async def through_socks(world: World, socks: SocksServer, **options: Any) -> AsyncIterator[aiohttp.ClientSession]:
    url = f"socks5://127.0.0.1:{socks.port}"
    connector = SocksConnector.from_url(url, store=world.store, ssl=world.plain_context(), rdns=True, **options)
    async with pinned_session(connector=connector) as session:
        yield session


def test_the_mix_in_pins_a_connector_of_another_kind(world: World) -> None:
    seen: list[PinValidationError] = []

    async def main(url: str) -> int:
        async with through_socks(world, socks, on_violation=seen.append) as session:
            return await get(session, url)

    with SocksServer() as socks:
        assert asyncio.run(main(world.site.url(HOST))) == 200
        known = world.store.known_host(HOST)
        assert known is not None
        assert known.pins == world.header.pins
        violation = refused(lambda: asyncio.run(main(world.attacker.url(HOST))))
        assert socks.asked == [HOST, HOST]
    assert seen == [violation]
    assert violation.report is not None
    assert violation.report.port == world.attacker.port
    world.attacker.wait_idle()
    assert world.attacker.application_bytes == 0


@pytest.mark.parametrize("pinned", [HOST, OTHER])
def test_a_connector_that_ignores_server_hostname_is_refused(world: World, attacker: Site, pinned: str) -> None:
    # In aiohttp-socks TLS verifies the host of the URL, whatever server_hostname= says.
    world.store.pin(pinned, world.header.pins)

    async def main() -> int:
        async with through_socks(world, socks) as session:
            return await get(session, attacker.url(OTHER), server_hostname=HOST)

    with SocksServer() as socks:
        refused(lambda: asyncio.run(main()))
    attacker.wait_idle()
    assert attacker.application_bytes == 0


def test_the_contexts_of_such_a_connector_are_hardened_too(world: World, honest: trustme.CA) -> None:
    class ProxyConnector(PinnedConnectorMixin, aiohttp_socks.ProxyConnector):
        pass

    async def main() -> int:
        connector = ProxyConnector(
            "proxy.test",
            proxy.port,
            aiohttp_socks.ProxyType.HTTP,
            proxy_ssl=world.plain_context(),
            store=world.store,
            ssl=world.plain_context(),
        )
        async with pinned_session(connector=connector) as session:
            return await get(session, world.site.url(HOST))

    certificate = honest.issue_cert("proxy.test")
    with Proxy(certificate) as proxy:
        world.store.pin("proxy.test", [leaf_pin(certificate)])
        assert asyncio.run(main()) == 200
        world.store.pin("proxy.test", [leaf_pin(world.backup)])
        refused(lambda: asyncio.run(main()))
        assert proxy.requests == 1


def test_another_connector_is_refused_with_the_way_to_do_it(world: World) -> None:
    async def main() -> None:
        async with aiohttp_socks.ProxyConnector("127.0.0.1", 1) as connector:
            with pytest.raises(
                UnenforceableContext,
                match=r"class PinnedProxyConnector\(PinnedConnectorMixin, ProxyConnector\)",
            ):
                pinned_session(world.store, connector=connector)

    asyncio.run(main())


class _ChangesItsHost(aiohttp.ClientRequest):
    async def send(self, conn: Any) -> aiohttp.ClientResponse:
        self.headers["Host"] = HOST
        return await super().send(conn)


def test_a_session_of_ones_own_with_requests_of_ones_own_is_checked_too(world: World, attacker: Site) -> None:
    world.pin_site()

    async def main() -> None:
        connector = PinnedConnector(world.store, ssl=world.plain_context())
        async with aiohttp.ClientSession(connector=connector, request_class=_ChangesItsHost) as session:
            await get(session, attacker.url(OTHER))

    assert f"the program asked for {HOST}" in str(refused(lambda: asyncio.run(main())))
    attacker.wait_idle()
    assert attacker.application_bytes == 0


def test_a_mix_in_behind_the_connector_would_check_nothing() -> None:
    with pytest.raises(UnenforceableContext, match=r"Last would connect without .* put PinnedConnectorMixin first"):
        type("Last", (aiohttp_socks.ProxyConnector, PinnedConnectorMixin), {})


def test_a_connector_without_tls_takes_no_mix_in() -> None:
    with pytest.raises(UnenforceableContext, match=r"is not an aiohttp\.TCPConnector"):
        type("Connector", (PinnedConnectorMixin, aiohttp.UnixConnector), {})


def test_a_connector_that_has_a_context_of_its_own_is_seen(world: World) -> None:
    own = world.plain_context()

    class Connector(PinnedConnectorMixin, aiohttp.TCPConnector):
        def _get_ssl_context(self, req: aiohttp.ClientRequest) -> ssl.SSLContext:
            return own

    async def main() -> None:
        async with pinned_session(connector=Connector(store=world.store)) as session:
            with pytest.raises(UnenforceableContext, match=f"connects to {HOST} without checking the pins"):
                await get(session, world.site.url(HOST))

    asyncio.run(main())
    world.site.wait_idle()
    assert (world.site.connections, world.site.application_bytes) == (1, 0)


# -- test doubles -----------------------------------------------------------------------------------------------------


class _Double(aiohttp.ClientResponse):
    # aioresponses 0.7.9 does not know an attribute that aiohttp needs since 3.14.
    def __init__(self, *args: Any, **options: Any) -> None:
        options.setdefault("stream_writer", SimpleNamespace(output_size=0))
        super().__init__(*args, **options)


def test_aioresponses_answers_and_passes_requests_on_to_pinned_connections(world: World) -> None:
    world.pin_site()

    async def main() -> None:
        async with pinned_session(world.store, ssl=world.plain_context()) as session:
            with aioresponses(passthrough=[world.site.url(HOST), world.attacker.url(HOST)]) as double:
                fields = {"Public-Key-Pins": "max-age=0"}
                double.get(f"https://{HOST}/made-up", body="made up", headers=fields, response_class=_Double)
                async with session.get(f"https://{HOST}/made-up") as response:
                    assert await response.text() == "made up"
                assert await get(session, world.site.url(HOST)) == 200
                with pytest.raises(aiohttp.ClientConnectorCertificateError):
                    await get(session, world.attacker.url(HOST))

    asyncio.run(main())
    assert world.store.known_host(HOST) is not None
    world.attacker.wait_idle()
    assert world.attacker.application_bytes == 0


@pytest.mark.parametrize("made", ["before", "inside"])
def test_vcrpy_replays_and_records_pinned_connections(world: World, made: str) -> None:
    world.pin_site()
    cassette = str(world.folder / "cassette.yaml")

    @contextlib.asynccontextmanager
    async def session_with(mode: str) -> AsyncIterator[aiohttp.ClientSession]:
        async with contextlib.AsyncExitStack() as stack:
            if made == "inside":
                stack.enter_context(vcr.use_cassette(cassette, record_mode=mode))
            session = await stack.enter_async_context(pinned_session(world.store, ssl=world.plain_context()))
            if made == "before":
                stack.enter_context(vcr.use_cassette(cassette, record_mode=mode))
            yield session

    async def main() -> None:
        async with session_with("once") as session:
            assert await get(session, world.site.url(HOST)) == 200
        async with session_with("none") as session:
            assert await get(session, world.site.url(HOST)) == 200
            with pytest.raises(vcr.errors.CannotOverwriteExistingCassetteException):
                await get(session, world.attacker.url(HOST))
        assert (world.site.connections, world.attacker.connections) == (1, 0)
        async with session_with("new_episodes") as session:
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await get(session, world.attacker.url(HOST))

    asyncio.run(main())
    world.attacker.wait_idle()
    assert world.attacker.application_bytes == 0


# -- the event loop, and resources that stay open ---------------------------------------------------------------------


def _loops() -> list[Any]:
    return [None, pytest.param("uvloop", marks=pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"))]


@pytest.mark.parametrize("loop", _loops(), ids=["asyncio", "uvloop"])
def test_the_loop_goes_on_while_a_noting_waits_for_the_lock(world: World, loop: str | None) -> None:
    factory = None if loop is None else pytest.importorskip(loop).new_event_loop

    async def main() -> int:
        connector = PinnedConnector(store, ssl=world.plain_context(), resolver=Loopback())
        async with pinned_session(connector=connector) as session:
            request = asyncio.create_task(get(session, world.site.url(HOST)))
            steps = await store.steps_while_it_waits(request, release)
            assert await request == 200
            return steps

    with (
        WatchedStore(world.folder / "watched") as store,
        write_lock_held(store.path) as release,
        asyncio.Runner(loop_factory=factory) as runner,
    ):
        assert runner.run(main()) == 200


def test_sessions_that_are_closed_leave_no_file_open(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DYNPIN_STORE", str(world.folder / "own.sqlite"))

    async def main() -> None:
        connectors = [PinnedConnector(ssl=world.plain_context()) for _ in range(30)]
        for connector in connectors:
            async with pinned_session(connector=connector) as session:
                assert await get(session, world.site.url(HOST)) == 200
                assert open_files(world.folder / "own.sqlite")
        assert open_files(world.folder / "own.sqlite") == []

    asyncio.run(main())
    with PinStore() as store:
        assert store.known_host(HOST) is not None


def test_closing_a_session_does_not_stop_the_loop(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DYNPIN_STORE", str(world.folder / "own.sqlite"))

    async def main() -> str:
        connector = PinnedConnector(ssl=world.plain_context())
        store, session = connector.pin_store, pinned_session(connector=connector)
        begun = asyncio.Event()
        loop = asyncio.get_running_loop()

        def note() -> str:
            loop.call_soon_threadsafe(begun.set)
            return store.note(HOST, str(world.header), [leaf_pin(world.certificate)]).outcome

        with write_lock_held(store.path) as release:
            noting = asyncio.create_task(asyncio.to_thread(note))
            await begun.wait()
            closing = asyncio.create_task(session.close())
            for _ in range(200):
                await asyncio.sleep(0)
            release()
            await closing
            return await noting

    # If the loop had stood still, the lock would never have been released, and the noting would have failed.
    assert asyncio.run(main()) == "noted"
