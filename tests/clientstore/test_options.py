"""Options of a library that could avoid the pins or be ignored: each works, or is refused with a message."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import aiohttp
import pytest
import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPSConnection
from urllib3.connectionpool import HTTPSConnectionPool
from websockets.exceptions import InvalidStatus

from dynpin import PinValidationError
from dynpin.clientstore import PinStore, enforce, pin_violation
from dynpin.clientstore.aiohttp import PinnedConnector, pinned_session
from dynpin.clientstore.httpx import PinnedClient
from dynpin.clientstore.requests import PinnedAdapter, PinnedSession
from dynpin.clientstore.urllib3 import note_responses, pinned_pool_manager
from dynpin.clientstore.websockets import pinned_connect, pinned_connect_sync
from dynpin.errors import UnenforceableContext
from tests.environments import told_by

from .libraries import LIBRARIES, Library
from .sites import Proxy
from .world import HOST, World


def _root(authority: Any) -> bytes:
    return ssl.PEM_cert_to_DER_cert(authority.cert_pem.bytes().decode())


# -- the options of enforce -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("library", LIBRARIES, ids=str)
def test_private_roots_are_bypassed_by_the_public_roots_that_are_given(world: World, library: Library) -> None:
    world.pin_site()
    bypass: dict[str, Any] = {"private_roots": "bypass", "public_roots": iter([_root(world.honest)])}
    url = world.attacker.url(HOST)
    assert library.visit(world.store, world.plain_context(), [url], **bypass) == [200]


@pytest.mark.parametrize(
    ("option", "make", "said"),
    [
        ("public_roots", lambda world: str(world.roots_file()), "in DER"),
        ("public_roots", lambda world: world.roots_file().read_bytes(), "in DER"),
        ("public_roots", lambda world: [world.rogue.cert_pem.bytes()], "in DER"),
        ("public_roots", lambda world: [str(world.roots_file())], "in DER"),
        ("reporter", lambda world: print, r"a method add\(report, report_uri\)"),
        ("on_violation", lambda world: "print", "be a function"),
    ],
    ids=["a file", "PEM", "roots in PEM", "files", "reporter", "on_violation"],
)
def test_a_value_of_another_kind_is_refused(world: World, option: str, make: Callable[[World], Any], said: str) -> None:
    # With roots that match none, each chain would end in a private root, and none would be checked.
    options: dict[str, Any] = {"private_roots": "bypass", "public_roots": [], option: make(world)}
    for refuse in (enforce, lambda context, store, **given: PinnedClient(store, verify=context, **given)):
        with pytest.raises(TypeError, match=f"{option} must .*{said}"):
            refuse(world.plain_context(), world.store, **options)


@pytest.mark.parametrize("library", LIBRARIES, ids=str)
def test_the_audit_lets_through_and_tells_and_notes_nothing(world: World, library: Library) -> None:
    world.pin_site()
    world.attacker.headers = [("Public-Key-Pins", "max-age=0")]
    told: list[PinValidationError] = []
    audit: dict[str, Any] = {"on_mismatch": "report", "on_violation": told.append}
    assert library.visit(world.store, world.plain_context(), [world.attacker.url(HOST)], **audit) == [200]
    assert ["shows none of its pinned keys" in str(violation) for violation in told] == [True]
    known = world.store.known_host(HOST)
    assert known is not None
    assert known.pins == world.header.pins


@pytest.mark.parametrize("option", [{"server_hostname": "other.test"}, {"headers": {"Host": HOST}}], ids=str)
def test_urllib3_the_audit_tells_of_names_too(world: World, rogue: Any, option: dict[str, Any]) -> None:
    world.pin_site()
    world.attacker.show(rogue.issue_cert("other.test"))
    host = HOST if "server_hostname" in option else "other.test"
    told: list[PinValidationError] = []
    audit: dict[str, Any] = {"on_mismatch": "report", "on_violation": told.append, **option}
    with pinned_pool_manager(world.store, ssl_context=world.plain_context(), **audit) as manager:
        assert manager.request("GET", world.attacker.url(host)).status == 200
    assert len(told) == 1


@pytest.mark.parametrize("library", ["requests", "aiohttp"])
def test_public_roots_hold_for_every_context_of_a_client(world: World, library: str) -> None:
    # An iterator can be read only once; a second context without any root would take every root for a private one.
    world.pin_site()
    both = iter([_root(world.honest), _root(world.rogue)])
    bypass: dict[str, Any] = {"private_roots": "bypass", "public_roots": both}
    site, attacker = world.site.url(HOST), world.attacker.url(HOST)

    async def by_aiohttp() -> None:
        async with pinned_session(world.store, ssl=world.plain_context(), **bypass) as session:
            await session.get(site)
            await session.get(attacker, ssl=world.plain_context())

    def by_requests() -> None:
        with PinnedSession(world.store, **bypass) as session:
            session.get(site, verify=str(world.roots_file()))
            session.get(attacker, verify=str(world.roots_file("again.pem")))

    with pytest.raises((requests.exceptions.SSLError, aiohttp.ClientConnectorCertificateError)) as caught:
        by_requests() if library == "requests" else asyncio.run(by_aiohttp())
    assert pin_violation(caught.value) is not None
    world.attacker.wait_idle()
    assert world.attacker.application_bytes == 0


@pytest.mark.parametrize("way", ["asyncio", "threads"])
def test_websockets_takes_them_too(world: World, way: str) -> None:
    world.pin_site()
    uri = f"wss://{HOST}:{world.attacker.port}/"

    async def connect(**options: Any) -> None:
        async with pinned_connect(uri, world.store, **options):
            pass

    def visit(roots: list[bytes]) -> None:
        options: dict[str, Any] = {"private_roots": "bypass", "public_roots": roots, "proxy": None, "open_timeout": 60}
        options["ssl"] = world.plain_context()
        if way == "asyncio":
            asyncio.run(connect(**options))
        else:
            pinned_connect_sync(uri, world.store, **options).close()

    with pytest.raises(PinValidationError):
        visit([_root(world.rogue)])
    world.attacker.wait_idle()
    assert world.attacker.application_bytes == 0
    with pytest.raises(InvalidStatus, match="HTTP 200"):  # it is not a WebSocket server, and has been asked
        visit([_root(world.honest)])


# -- urllib3 ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("proxied", [False, True], ids=["direct", "proxied"])
def test_urllib3_the_tls_versions_are_those_that_were_asked_for(world: World, proxied: bool) -> None:
    with Proxy() as proxy:
        for asked, version in (
            ({"ssl_maximum_version": ssl.TLSVersion.TLSv1_2}, "TLSv1.2"),
            ({"ssl_minimum_version": ssl.TLSVersion.TLSv1_3}, "TLSv1.3"),
        ):
            options: dict[str, Any] = {
                "ca_certs": str(world.roots_file()),
                "proxy_url": proxy.url if proxied else None,
                **asked,
            }
            with pinned_pool_manager(world.store, **options) as manager:
                response: Any = manager.request("GET", world.site.url(HOST), preload_content=False)
                assert response.connection.sock.version() == version
                response.drain_conn()


def test_urllib3_a_site_below_the_minimum_version_is_refused(world: World) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    world.certificate.configure_cert(old)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    world.site.use(old)
    options: dict[str, Any] = {"ca_certs": str(world.roots_file()), "ssl_minimum_version": ssl.TLSVersion.TLSv1_3}
    with (
        pinned_pool_manager(world.store, retries=False, **options) as manager,
        pytest.raises(urllib3.exceptions.SSLError),
    ):
        manager.request("GET", world.site.url(HOST))


@pytest.mark.parametrize("name", ["ssl_version", "ssl_minimum_version", "ssl_maximum_version"])
def test_urllib3_versions_beside_the_users_own_context_are_refused(world: World, name: str) -> None:
    option: dict[str, Any] = {name: ssl.TLSVersion.TLSv1_2}
    with pytest.raises(TypeError, match=rf"{name}= has no effect on a context of your own: .*context\.maximum_version"):
        pinned_pool_manager(world.store, ssl_context=world.plain_context(), **option)


class _OwnConnection(HTTPSConnection):
    """Like a SOCKS proxy's connection: it connects in its own way."""

    made: ClassVar[list[str]]

    def _new_conn(self) -> Any:
        self.made.append(self.host)
        return super()._new_conn()


def test_urllib3_a_manager_keeps_its_own_way_to_connect(world: World) -> None:
    class Connection(_OwnConnection):
        made: ClassVar[list[str]] = []

    class Pool(HTTPSConnectionPool):
        ConnectionCls = Connection

    manager = urllib3.PoolManager(ssl_context=world.context(), retries=False)
    manager.pool_classes_by_scheme = {**manager.pool_classes_by_scheme, "https": Pool}
    note_responses(manager, world.store)
    with manager:
        assert manager.request("GET", world.site.url(HOST)).status == 200
        assert Connection.made == [HOST]
        assert world.store.known_host(HOST) is not None
        with PinStore.private() as other:
            note_responses(manager, other)  # the last one counts
            manager.clear()
            assert manager.request("GET", world.site.url(HOST)).status == 200
            assert other.known_host(HOST) is not None


# -- requests ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["https://", f"https://{HOST}", f"HTTPS://{HOST.upper()}"])
def test_requests_another_adapter_for_https_is_refused(world: World, prefix: str) -> None:
    world.pin_site()
    with PinnedSession(world.store, context=world.plain_context()) as session:
        with pytest.raises(UnenforceableContext, match=r"without checking the pins: .* max_retries="):
            session.mount(prefix, HTTPAdapter(max_retries=3))
        session.mount(prefix, PinnedAdapter(world.store, context=world.plain_context(), max_retries=1))
        session.mount("http://", HTTPAdapter(max_retries=3))
        with pytest.raises(requests.exceptions.SSLError) as caught:
            session.get(world.attacker.url(HOST))
    assert pin_violation(caught.value) is not None


def test_requests_a_context_from_the_users_own_class_is_refused(world: World) -> None:
    class Adapter(PinnedAdapter):
        def init_poolmanager(self, *args: Any, **options: Any) -> None:
            super().init_poolmanager(*args, ssl_context=world.plain_context(), **options)

    with pytest.raises(TypeError, match=r"ssl_context= would have no effect.*PinnedAdapter\(context="):
        Adapter(world.store)


# -- aiohttp ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "option",
    [
        {"ssl": ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)},
        {"private_roots": "bypass"},
        {"public_roots": []},
        {"on_violation": print},
        {"reporter": "off"},
        {"store": None},
    ],
    ids=lambda option: next(iter(option)),
)
def test_aiohttp_options_beside_a_connector_are_refused(world: World, option: dict[str, Any]) -> None:
    async def main() -> None:
        given = {"store": world.store} if "store" in option else option
        async with PinnedConnector(world.store) as connector:
            with pytest.raises(TypeError, match="give them to PinnedConnector"):
                pinned_session(connector=connector, **given)
            await pinned_session(connector=connector).close()

    asyncio.run(main())


@pytest.mark.parametrize(
    "option", [{"verify_ssl": False}, {"fingerprint": bytes(32)}], ids=lambda option: next(iter(option))
)
def test_aiohttp_the_older_ways_not_to_verify_are_refused(world: World, option: dict[str, Any]) -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match="mutually exclusive"):
            PinnedConnector(world.store, **option)

    with pytest.warns(DeprecationWarning, match="is deprecated"):
        asyncio.run(main())


# -- websockets -------------------------------------------------------------------------------------------------------


def test_websockets_a_context_for_ws_is_refused_as_by_websockets(world: World) -> None:
    async def connect() -> None:
        async with pinned_connect(f"ws://{HOST}:1/", world.store, ssl=world.plain_context(), proxy=None):
            pass

    attempts: list[Callable[[], object]] = [
        lambda: asyncio.run(connect()),
        lambda: pinned_connect_sync(f"ws://{HOST}:1/", world.store, ssl=world.plain_context(), proxy=None),
    ]
    for attempt in attempts:
        with pytest.raises(ValueError, match="ssl argument is incompatible"):
            attempt()


# -- niquests ---------------------------------------------------------------------------------------------------------


def test_niquests_uses_the_configured_tls_versions(world: World, niquests_python: Path) -> None:
    synchronous, asynchronous, beside = told_by(
        niquests_python, "tests.clientstore.niquests_tls", world.site.url(HOST), str(world.roots_file())
    )
    assert synchronous == asynchronous == ["TLSv1_2", "ECDHE-ECDSA-CHACHA20-POLY1305"]
    assert beside.startswith("tls_configuration= has no effect on a context of your own")
