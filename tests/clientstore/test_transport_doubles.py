"""Other transports in a pinned client of httpx or httpx2: test doubles, and transports around another one."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import respx
from pytest_httpx import HTTPXMock

from dynpin import UnenforceableContext
from dynpin.clientstore import PinStore, pin_violation

from .sites import Proxy
from .ways import WAYS, Way, custom, every_way, refused
from .world import HOST, World

# It has no types.
vcr: Any = importlib.import_module("vcr")


# -- given as a transport ---------------------------------------------------------------------------------------


def _double(way: Way) -> Any:
    """A transport that is a test double in memory."""
    return way.library.MockTransport(lambda request: way.library.Response(204))


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
    # The user's own store is not opened for such a client either.
    file = world.folder / "own" / "pins.sqlite"
    monkeypatch.setenv("DYNPIN_STORE", str(file))
    assert way.visit(way.client(world, store=None, transport=make(way)), url) == [204]
    assert not file.exists()


@every_way
def test_a_transport_of_another_kind_reaches_all_but_pinned_hosts(world: World, way: Way) -> None:
    world.pin_site()
    mine = custom(way)
    assert way.visit(way.client(world, transport=mine), "https://other.test/", f"http://{HOST}/") == [204, 204]
    assert (mine.entered, mine.closed) == (True, True)
    for option in ({"transport": custom(way)}, {"mounts": {"https://": custom(way)}}):
        with pytest.raises(
            way.library.ConnectError, match=r"Custom gives no access to its TLS connection.*PinnedTransport"
        ) as caught:
            way.visit(way.client(world, **option), f"https://{HOST}/")
        assert pin_violation(caught.value) is not None
    client = way.client(world, transport=custom(way), on_mismatch="report")
    assert way.visit(client, f"https://{HOST}/") == [204]


@every_way
def test_a_transport_around_another_one_is_as_good_as_that(world: World, way: Way) -> None:
    around = custom(way, way.transport(world))
    assert way.visit(way.client(world, transport=around), world.site.url(HOST)) == [200]
    assert world.store.known_host(HOST) is not None
    refused(world, way, way.client(world, transport=custom(way, way.transport(world))), world.attacker.url(HOST))
    with pytest.raises(UnenforceableContext, match=r"give a .*Pinned\w*Transport"):
        way.client(world, transport=custom(way, way.of(way.library, "HTTPTransport")()))
    with pytest.raises(way.library.ConnectError, match="gives no access to its TLS connection"):
        way.visit(way.client(world, transport=custom(way, custom(way))), world.site.url(HOST))


def _in_an_attribute(way: Way, around: Any, plain: Any) -> None:
    around.inner = plain


def _in_a_list(way: Way, around: Any, plain: Any) -> None:
    around.others = [{"spare": plain}]


def _of_the_class(way: Way, around: Any, plain: Any) -> None:
    type(around).spare = plain


def _in_a_client(way: Way, around: Any, plain: Any) -> None:
    around.client = way.plain(transport=plain)


def _of_another_kind(way: Way, around: Any, plain: Any) -> None:
    around.spare = custom(way)


@every_way
@pytest.mark.parametrize(
    "put", [_in_an_attribute, _in_a_list, _of_the_class, _in_a_client, _of_another_kind], ids=lambda put: put.__name__
)
def test_what_is_put_into_a_transport_later_counts_at_the_next_request(world: World, way: Way, put: Any) -> None:
    world.pin_site()
    around = custom(way, custom(way, way.transport(world)))
    client = way.client(world, transport=around)
    put(way, around, way.of(way.library, "HTTPTransport")(verify=world.plain_context()))
    with pytest.raises(way.library.ConnectError, match="gives no access to its TLS connection"):
        way.visit(client, world.site.url(HOST))
    assert world.site.connections == 0


def _as_its_transport(way: Way, client: Any, transport: Any) -> None:
    client._transport = transport


def _as_a_mount(way: Way, client: Any, transport: Any) -> None:
    client._mounts = {way.library._utils.URLPattern("https://"): transport}


@every_way
@pytest.mark.parametrize("put", [_as_its_transport, _as_a_mount], ids=lambda put: put.__name__)
def test_a_transport_that_is_put_into_a_client_later_is_pinned_or_refused(world: World, way: Way, put: Any) -> None:
    world.pin_site()
    client = way.client(world)
    put(way, client, way.of(way.library, "HTTPTransport")(verify=world.plain_context()))
    with pytest.raises(UnenforceableContext, match=r"the client has a \w*HTTPTransport, which connects without"):
        way.visit(client, world.attacker.url(HOST))
    client = way.client(world)
    put(way, client, custom(way))
    with pytest.raises(way.library.ConnectError, match="gives no access to its TLS connection"):
        way.visit(client, world.attacker.url(HOST))
    assert world.attacker.connections == 0
    # As instrumentation does.
    client = way.client(world)
    put(way, client, custom(way, client._transport))
    assert way.visit(client, world.site.url(HOST)) == [200]


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
        # The proxy's transport uses the store of the pinned one.
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
    # What is recorded comes over a real connection, which is checked against the pins.
    world.pin_site()
    with vcr.use_cassette(str(world.folder / "another.yaml"), record_mode="all"):
        refused(world, way, way.client(world), world.attacker.url(HOST))
