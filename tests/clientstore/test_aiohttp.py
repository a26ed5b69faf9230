"""aiohttp: the names of a request, the proxies on its way, what one request says, other connectors, the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from types import SimpleNamespace
from typing import Any

import aiohttp
import aiohttp_socks
import pytest
import trustme
import vcr  # type: ignore[import-untyped]
import vcr.errors  # type: ignore[import-untyped]
from aioresponses import aioresponses

from dynpin import PinValidationError, PublicKeyPins, UnenforceableContext
from dynpin.clientstore import PinStore, pin_violation
from dynpin.clientstore.aiohttp import PinnedConnector, PinnedConnectorMixin, pinned_session

from .held import WatchedStore, open_files, write_lock_held
from .libraries import Loopback, through_a_proxy
from .sites import Proxy, Site
from .socks import SocksServer
from .world import HOST, World, leaf_pin

OTHER = "other.test"
Get = Callable[[aiohttp.ClientSession, str], Awaitable[int]]


async def get(session: aiohttp.ClientSession, url: str, **options: Any) -> int:
    async with session.get(url, **options) as response:
        await response.read()
        return response.status


def visit(world: World, url: str, *, connector: dict[str, Any] | None = None, **options: Any) -> int:
    """One request of a session that trusts both authorities."""

    async def main() -> int:
        async with pinned_session(world.store, ssl=world.plain_context(), **(connector or {})) as session:
            return await get(session, url, **options)

    return asyncio.run(main())


def refused(attempt: Callable[[], object]) -> PinValidationError:
    with pytest.raises(aiohttp.ClientConnectorCertificateError) as caught:
        attempt()
    violation = pin_violation(caught.value)
    assert violation is not None
    caught.value.__traceback__ = None
    gc.collect()
    return violation


def unverified(world: World, **settings: Any) -> ssl.SSLContext:
    context = world.plain_context()
    context.check_hostname = False
    for name, value in settings.items():
        setattr(context, name, value)
    return context


@pytest.fixture
def attacker(world: World, rogue: trustme.CA) -> Iterator[Site]:
    """An attacker with certificates for whatever name TLS may verify."""
    names = (HOST, OTHER, "127.0.0.1", "fass.test", "xn--fa-hia.test", "proxy.test")
    with Site(rogue.issue_cert(*names)) as server:
        yield server


# -- the names of a request -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Way:
    """A request that is meant for HOST and verified as `verified`, by whatever option; None where nothing is."""

    name: str
    url_host: str
    verified: str | None
    options: Callable[[World, Site], dict[str, Any]] = lambda world, site: {}
    session: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


def _fingerprint(world: World, site: Site) -> dict[str, Any]:
    shown = ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", site.port)))
    return {"ssl": aiohttp.Fingerprint(sha256(shown).digest())}


WAYS = [
    Way("server_hostname=", HOST, OTHER, lambda world, site: {"server_hostname": OTHER}),
    Way("Host field", OTHER, OTHER, lambda world, site: {"headers": {"Host": HOST}}),
    Way("Host field with a port", OTHER, OTHER, lambda world, site: {"headers": {"host": f"{HOST.upper()}:443"}}),
    Way("Host field of the session", OTHER, OTHER, session={"headers": {"Host": f"{HOST}."}}),
    Way("IP address and Host field", "127.0.0.1", "127.0.0.1", lambda world, site: {"headers": {"Host": HOST}}),
    Way("IP address and server_hostname=", "127.0.0.1", HOST, lambda world, site: {"server_hostname": HOST}),
    Way("ssl=False", HOST, None, lambda world, site: {"ssl": False}),
    Way("ssl=False and server_hostname=", OTHER, None, lambda world, site: {"ssl": False, "server_hostname": HOST}),
    Way("ssl=False and Host field", OTHER, None, lambda world, site: {"ssl": False, "headers": {"Host": HOST}}),
    Way("ssl=Fingerprint", HOST, None, _fingerprint),
    Way("ssl=context without host names", HOST, None, lambda world, site: {"ssl": unverified(world)}),
    Way(
        "ssl=context without certificates",
        HOST,
        None,
        lambda world, site: {"ssl": unverified(world, verify_mode=ssl.CERT_NONE)},
    ),
]


TABLE = [
    (way, pinned)
    for way in WAYS
    for pinned in ("asked", "verified", None)
    if pinned != "verified" or way.verified in (HOST, OTHER)
]


@pytest.mark.parametrize(("way", "pinned"), TABLE, ids=str)
def test_a_request_is_held_against_the_pins_of_each_of_its_names(
    world: World, attacker: Site, way: Way, pinned: str | None
) -> None:
    if pinned is not None:
        world.store.pin(HOST if pinned == "asked" else way.verified or "", world.header.pins)

    def attempt() -> int:
        return visit(world, attacker.url(way.url_host), connector=way.session, **way.options(world, attacker))

    if pinned is None:
        assert attempt() == 200
        attacker.wait_idle()
        assert attacker.application_bytes > 0
        return
    assert "No request was sent" in str(refused(attempt)) or way.verified == HOST
    attacker.wait_idle()
    assert attacker.application_bytes == 0


@pytest.mark.parametrize("way", [way for way in WAYS if way.verified], ids=str)
def test_a_websocket_is_held_in_the_same_way(world: World, attacker: Site, way: Way) -> None:
    world.pin_site()

    async def main() -> None:
        async with pinned_session(world.store, ssl=world.plain_context(), **way.session) as session:
            url = attacker.url(way.url_host).replace("https:", "wss:")
            await session.ws_connect(url, **way.options(world, attacker))

    refused(lambda: asyncio.run(main()))
    attacker.wait_idle()
    assert attacker.application_bytes == 0


FORMS = ["faß.test", "FAß.test", "faß.test.", "xn--fa-hia.test", "XN--FA-HIA.TEST"]


@pytest.mark.parametrize("visited", FORMS)
@pytest.mark.parametrize("pinned", ["faß.test", "xn--fa-hia.test"])
def test_a_name_is_one_name_in_all_its_forms(world: World, attacker: Site, pinned: str, visited: str) -> None:
    world.store.pin(pinned, world.header.pins)
    refused(lambda: visit(world, attacker.url(visited)))
    attacker.wait_idle()
    assert attacker.application_bytes == 0


@pytest.mark.parametrize("pinned", ["faß.test", "fass.test"])
def test_ssl_writes_a_server_hostname_in_its_own_way(world: World, attacker: Site, pinned: str) -> None:
    # IDNA 2003: ssl verifies fass.test.
    world.store.pin(pinned, world.header.pins)
    refused(lambda: visit(world, attacker.url("faß.test"), server_hostname="faß.test"))
    attacker.wait_idle()
    assert attacker.application_bytes == 0


@pytest.mark.parametrize("visited", ["BANK.test", "bank.test.", "bank。test"])
def test_the_site_is_noted_under_its_one_name(world: World, visited: str) -> None:
    assert visit(world, world.site.url(visited)) == 200
    known = world.store.known_host(HOST)
    assert known is not None
    assert known.pins == world.header.pins


def test_what_is_answered_for_another_name_is_noted_for_nobody(world: World, honest: trustme.CA) -> None:
    certificate = honest.issue_cert(HOST, OTHER)
    header = PublicKeyPins((leaf_pin(certificate), leaf_pin(world.backup)), max_age=60)
    with Site(certificate, headers=[("Public-Key-Pins", str(header))]) as site:
        assert visit(world, site.url(OTHER), headers={"Host": HOST}) == 200
        assert visit(world, site.url(OTHER), server_hostname=HOST) == 200
        assert len(world.store) == 0
        assert visit(world, site.url(OTHER), headers={"Host": f"{OTHER.upper()}:{site.port}"}) == 200
    assert [entry.host for entry in world.store.hosts()] == [OTHER]


def test_a_node_can_be_asked_by_its_address(world: World) -> None:
    world.pin_site()
    assert visit(world, world.site.url("127.0.0.1"), server_hostname=HOST, headers={"Host": HOST}) == 200


@pytest.mark.parametrize("on_mismatch", ["refuse", "report"])
def test_in_the_audit_mode_nothing_is_refused_and_nothing_noted(world: World, attacker: Site, on_mismatch: str) -> None:
    world.pin_site()
    seen: list[PinValidationError] = []
    attacker.headers = world.site.headers
    connector = {"on_mismatch": on_mismatch, "on_violation": seen.append}
    options: list[dict[str, Any]] = [
        {},
        {"server_hostname": OTHER},
        {"ssl": False},
        {"ssl": unverified(world)},
    ]
    for option in options:
        url = attacker.url(HOST)
        if on_mismatch == "report":
            assert visit(world, url, connector=connector, **option) == 200
        else:
            refused(lambda url=url, option=option: visit(world, url, connector=connector, **option))  # type: ignore[misc]
    assert len(seen) == len(options)
    known = world.store.known_host(HOST)
    assert known is not None
    assert known.source == "static"
    assert len(world.store) == 1


# -- the proxies on the way -------------------------------------------------------------------------------------------

UNVERIFIED: list[dict[str, Any]] = [{"ssl": False}, {"ssl": aiohttp.Fingerprint(bytes(32))}]


@through_a_proxy
@pytest.mark.parametrize("option", [*UNVERIFIED, {}], ids=["ssl=False", "Fingerprint", "verified"])
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("of", ["request", "session"])
def test_a_pinned_proxy_hears_nothing_under_another_key(
    world: World, rogue: trustme.CA, option: dict[str, Any], scheme: str, of: str
) -> None:
    world.store.pin("proxy.test", world.header.pins)
    with Proxy(rogue.issue_cert("proxy.test")) as proxy:
        options: dict[str, Any] = {**option, "proxy_headers": {"Proxy-Authorization": "Basic c2VjcmV0"}}
        session: dict[str, Any] = {}
        (options if of == "request" else session)["proxy"] = proxy.url
        url = f"{scheme}://{OTHER}:{world.site.port}/"
        violation = refused(lambda: visit(world, url, connector=session, **options))
        assert proxy.requests == 0
    assert "proxy.test" in str(violation)


def test_an_unpinned_proxy_is_met_unverified_as_it_is_asked_for(world: World, rogue: trustme.CA) -> None:
    # What makes the zeros above mean something.
    with Proxy(rogue.issue_cert("proxy.test")) as proxy:
        assert visit(world, "http://plain.test/", proxy=proxy.url, ssl=False) == 200
        assert proxy.requests == 1


@through_a_proxy
@pytest.mark.parametrize("pinned", [HOST, OTHER, "proxy.test"])
def test_unverified_each_of_three_names_is_looked_up(world: World, rogue: trustme.CA, pinned: str) -> None:
    world.store.pin(pinned, world.header.pins)
    with Proxy(rogue.issue_cert("proxy.test")) as proxy:
        options: dict[str, Any] = {"server_hostname": OTHER, "proxy": proxy.url, "ssl": False}
        assert pinned in str(refused(lambda: visit(world, world.attacker.url(HOST), **options)))
        assert proxy.requests == 0
    assert world.attacker.connections == 0


@through_a_proxy
def test_behind_a_proxy_the_name_of_tls_counts_too(world: World, attacker: Site, honest: trustme.CA) -> None:
    world.pin_site()
    with Proxy(honest.issue_cert("proxy.test")) as proxy:
        for options in ({"server_hostname": OTHER}, {"headers": {"Host": HOST}}):
            host = HOST if "server_hostname" in options else OTHER
            refused(lambda host=host, options=options: visit(world, attacker.url(host), proxy=proxy.url, **options))  # type: ignore[misc]
    attacker.wait_idle()
    assert attacker.application_bytes == 0


# -- what one request says, and the next ------------------------------------------------------------------------------


def _per_request(world: World, site: Site, proxy: Proxy) -> list[tuple[str, dict[str, Any]]]:
    return [
        (site.url(OTHER), {"server_hostname": HOST}),
        (site.url("127.0.0.1"), {"server_hostname": OTHER}),
        (site.url(OTHER), {"headers": {"Host": "elsewhere.test"}}),
        (site.url(OTHER), {"ssl": False}),
        (site.url(OTHER), _fingerprint(world, site)),
        (site.url(OTHER), {"ssl": world.plain_context()}),
        (site.url(OTHER), {"ssl": unverified(world, verify_mode=ssl.CERT_NONE)}),
        (site.url(OTHER), {"proxy": proxy.url}),
        (site.url(OTHER), {"proxy": proxy.url, "proxy_headers": {"X": "y"}, "ssl": False}),
    ]


@through_a_proxy
def test_what_one_request_says_is_forgotten_by_the_next(world: World, honest: trustme.CA) -> None:
    # Every request of the table, and after each one a request to the site and one to its attacker, of one session.
    context = world.plain_context()
    world.store.pin(HOST, [leaf_pin(world.certificate), leaf_pin(world.backup)])

    def state() -> tuple[object, ...]:
        return context.verify_mode, context.check_hostname, len(context.get_ca_certs()), context.options

    async def main() -> None:
        async with pinned_session(world.store, ssl=context) as session:
            before = state()
            for url, options in _per_request(world, site, proxy):
                with contextlib.suppress(aiohttp.ClientConnectorCertificateError):  # it is pinned to another key
                    await get(session, url, **options)
                assert await get(session, world.site.url(HOST)) == 200
                with pytest.raises(aiohttp.ClientConnectorCertificateError):
                    await get(session, world.attacker.url(HOST))
                assert state() == before

    with Site(honest.issue_cert(HOST, OTHER, "127.0.0.1")) as site, Proxy() as proxy:
        asyncio.run(main())
    world.attacker.wait_idle()
    assert world.attacker.application_bytes == 0


# -- connectors of another kind ---------------------------------------------------------------------------------------


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
def test_a_connector_that_passes_over_server_hostname_is_refused(world: World, attacker: Site, pinned: str) -> None:
    # aiohttp-socks has TLS verify the host of the URL, whatever server_hostname= says.
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


def test_a_connector_without_tls_takes_no_mix_in() -> None:
    with pytest.raises(UnenforceableContext, match=r"is no aiohttp\.TCPConnector"):
        type("Connector", (PinnedConnectorMixin, aiohttp.UnixConnector), {})


def test_a_connector_that_has_a_context_of_its_own_is_seen(world: World) -> None:
    own = world.plain_context()

    class Connector(PinnedConnectorMixin, aiohttp.TCPConnector):
        def _get_ssl_context(self, req: aiohttp.ClientRequest) -> ssl.SSLContext:
            return own

    async def main() -> None:
        async with pinned_session(connector=Connector(store=world.store)) as session:
            with pytest.raises(UnenforceableContext, match=f"connects to {HOST} past the pins"):
                await get(session, world.site.url(HOST))

    asyncio.run(main())
    world.site.wait_idle()
    assert (world.site.connections, world.site.application_bytes) == (1, 0)


# -- test doubles -----------------------------------------------------------------------------------------------------


class _Double(aiohttp.ClientResponse):
    # aioresponses 0.7.9 does not know what aiohttp asks for since 3.14.
    def __init__(self, *args: Any, **options: Any) -> None:
        options.setdefault("stream_writer", SimpleNamespace(output_size=0))
        super().__init__(*args, **options)


def test_aioresponses_answers_and_passes_on_to_what_is_pinned(world: World) -> None:
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
def test_vcrpy_replays_and_records_what_is_pinned(world: World, made: str) -> None:
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


# -- the event loop, and what is left open ----------------------------------------------------------------------------


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
                assert open_files(str(world.folder / "own.sqlite"))
        assert open_files(str(world.folder / "own.sqlite")) == []

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

    # If the loop had stood still, nobody would have let go of the lock, and the noting would have been given up.
    assert asyncio.run(main()) == "noted"
