"""aiohttp: the names in a request, the proxies on its way, and its per-request options."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from inspect import signature
from typing import Any

import aiohttp
import pytest
import trustme

from dynpin import PinValidationError, PublicKeyPins
from dynpin.clientstore import PinOptions
from dynpin.clientstore.aiohttp import ConnectorOptions, SessionOptions, pinned_session

from .aiohttp_visits import OTHER, attacker_of_many_names, get, refused, visit
from .libraries import through_a_proxy
from .sites import Proxy, Site
from .world import HOST, World, leaf_pin


def unverified(world: World, **settings: Any) -> ssl.SSLContext:
    context = world.plain_context()
    context.check_hostname = False
    for name, value in settings.items():
        setattr(context, name, value)
    return context


@pytest.fixture
def attacker(world: World, rogue: trustme.CA) -> Iterator[Site]:
    with attacker_of_many_names(rogue) as server:
        yield server


# -- the names in a request -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Way:
    """A request that is meant for HOST and verified as `verified`; None if nothing is verified."""

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


class _ChangesItsHost(aiohttp.ClientRequest):
    async def send(self, conn: Any) -> aiohttp.ClientResponse:
        self.headers["Host"] = HOST
        return await super().send(conn)


async def _adds_a_host(req: aiohttp.ClientRequest, handler: Any) -> aiohttp.ClientResponse:
    req.headers.add("Host", HOST)
    response: aiohttp.ClientResponse = await handler(req)
    return response


WAYS = [
    Way("server_hostname=", HOST, OTHER, lambda world, site: {"server_hostname": OTHER}),
    Way("Host field", OTHER, OTHER, lambda world, site: {"headers": {"Host": HOST}}),
    Way("Host field with a port", OTHER, OTHER, lambda world, site: {"headers": {"host": f"{HOST.upper()}:443"}}),
    Way("Host field of the session", OTHER, OTHER, session={"headers": {"Host": f"{HOST}."}}),
    Way("Host field added to another one", OTHER, OTHER, session={"middlewares": (_adds_a_host,)}),
    Way("Host field set while it is sent", OTHER, OTHER, session={"request_class": _ChangesItsHost}),
    Way(
        "ssl=False and Host field set while it is sent",
        OTHER,
        None,
        lambda world, site: {"ssl": False},
        session={"request_class": _ChangesItsHost},
    ),
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
def test_a_request_is_checked_against_the_pins_of_each_of_its_names(
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
def test_a_websocket_is_checked_in_the_same_way(world: World, attacker: Site, way: Way) -> None:
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


def test_a_response_for_another_name_is_not_noted(world: World, honest: trustme.CA) -> None:
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


@pytest.mark.parametrize(
    ("options", "takes"),
    [(SessionOptions, aiohttp.ClientSession), (ConnectorOptions, aiohttp.TCPConnector)],
    ids=["session", "connector"],
)
def test_an_editor_completes_what_the_library_takes(options: type, takes: type) -> None:
    own = set(options.__annotations__) - set(PinOptions.__annotations__)
    assert own
    assert own <= set(signature(takes).parameters)


# -- the proxies on the way -------------------------------------------------------------------------------------------

UNVERIFIED: list[dict[str, Any]] = [{"ssl": False}, {"ssl": aiohttp.Fingerprint(bytes(32))}]


@through_a_proxy
@pytest.mark.parametrize("option", [*UNVERIFIED, {}], ids=["ssl=False", "Fingerprint", "verified"])
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("of", ["request", "session"])
def test_a_pinned_proxy_with_another_key_receives_nothing(
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


def test_an_unpinned_proxy_is_used_unverified_if_the_user_asks_for_it(world: World, rogue: trustme.CA) -> None:
    # So that the zeros above mean something.
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


# -- per-request options ----------------------------------------------------------------------------------------------


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
def test_options_of_one_request_do_not_affect_the_next(world: World, honest: trustme.CA) -> None:
    # Every request of the table; after each one, the same session requests the site and its attacker.
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
