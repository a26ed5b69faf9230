"""WebSockets: enforced like all else, and the response to the opening handshake is noted."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ssl
from collections.abc import Awaitable, Callable, Iterator
from threading import Thread
from typing import Any

import aiohttp
import pytest
import trustme
from websockets.datastructures import Headers
from websockets.exceptions import InvalidStatus
from websockets.http11 import Request, Response
from websockets.sync.server import Server, ServerConnection, serve

from dynpin import PinValidationError
from dynpin.clientstore import pin_violation
from dynpin.clientstore.aiohttp import pinned_session
from dynpin.clientstore.websockets import pinned_connect, pinned_connect_sync

from .inbox import Inbox
from .libraries import through_a_proxy
from .sites import Proxy, Site
from .world import HOST, World, leaf_pin


def run(main: Callable[[], Awaitable[object]]) -> object:
    async def wrapped() -> object:
        return await main()

    return asyncio.run(wrapped())


def _echo(connection: ServerConnection) -> None:
    for message in connection:
        connection.send(message)


def without_tickets(certificate: trustme.LeafCert) -> ssl.SSLContext:
    """A server's context that sends nothing after the handshake.

    Session tickets wake the reading thread of websockets, which then waits inside OpenSSL while another thread writes.
    OpenSSL does not allow that: one of some hundred connections gets no answer.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = 0
    certificate.configure_cert(context)
    return context


@contextlib.contextmanager
def websocket_site(world: World, answer: Callable[[Request], Response | None], *, tls: bool = True) -> Iterator[int]:
    """A server of the websockets library; `answer` may return a response that replaces the handshake."""

    def process_request(connection: ServerConnection, request: Request) -> Response | None:
        return answer(request)

    def process_response(connection: ServerConnection, request: Request, response: Response) -> Response:
        response.headers["Public-Key-Pins"] = str(world.header)
        return response

    server: Server = serve(
        _echo,
        "127.0.0.1",
        0,
        ssl=without_tickets(world.certificate) if tls else None,
        process_request=process_request,
        process_response=process_response,
    )
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.socket.getsockname()[1]
    finally:
        server.shutdown()
        thread.join()


@pytest.fixture
def port(world: World) -> Iterator[int]:
    with websocket_site(world, lambda request: None) as found:
        yield found


def _context(world: World, uri: str) -> ssl.SSLContext | None:
    return world.plain_context() if uri.startswith("wss:") else None


def by_websockets(world: World, uri: str, **options: Any) -> str:
    async def main() -> object:
        async with pinned_connect(uri, world.store, ssl=_context(world, uri), **options) as connection:
            await connection.send("hello")
            return await connection.recv()

    return str(run(main))


def by_websockets_sync(world: World, uri: str, **options: Any) -> str:
    with pinned_connect_sync(uri, world.store, ssl=_context(world, uri), **options) as connection:
        connection.send("hello")
        return str(connection.recv())


def by_aiohttp(world: World, uri: str, *, proxy: str | None = None) -> str:
    async def main() -> object:
        async with (
            pinned_session(world.store, ssl=world.plain_context()) as session,
            session.ws_connect(uri, proxy=proxy) as connection,
        ):
            await connection.send_str("hello")
            return (await connection.receive()).data

    return str(run(main))


LIBRARIES = [by_websockets, by_websockets_sync, by_aiohttp]
each = pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: library.__name__)


def refused(world: World, attempt: Callable[[], object]) -> PinValidationError:
    with pytest.raises((PinValidationError, aiohttp.ClientConnectorCertificateError)) as caught:
        attempt()
    violation = pin_violation(caught.value)
    assert violation is not None
    caught.value.__traceback__ = None
    gc.collect()
    world.attacker.wait_idle()
    assert world.attacker.connections == 1
    assert world.attacker.application_bytes == 0
    return violation


@through_a_proxy
@each
@pytest.mark.parametrize("proxied", [False, True], ids=["direct", "proxied"])
def test_the_handshake_is_noted_and_the_attacker_refused(
    world: World, port: int, library: Callable[..., str], proxied: bool
) -> None:
    with Proxy() as proxy:
        options = {"proxy": proxy.url if proxied else None}
        assert library(world, f"wss://{HOST}:{port}/", **options) == "hello"
        known = world.store.known_host(HOST)
        assert known is not None
        assert known.pins == world.header.pins
        violation = refused(world, lambda: library(world, f"wss://{HOST}:{world.attacker.port}/", **options))
    assert violation.report is not None
    assert violation.report.port == world.attacker.port


@through_a_proxy
@pytest.mark.parametrize("way", ["environment", "proxy=", "proxy_ssl="])
@pytest.mark.parametrize("library", [by_websockets, by_websockets_sync], ids=lambda library: library.__name__)
def test_the_tls_of_a_proxy_is_checked_against_its_own_pins(
    world: World, port: int, monkeypatch: pytest.MonkeyPatch, library: Callable[..., str], way: str
) -> None:
    bundle = world.folder / "roots.pem"
    bundle.write_bytes(world.honest.cert_pem.bytes())
    if way != "proxy_ssl=":
        monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    with Proxy(world.honest.issue_cert("proxy.test")) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)

        def visit() -> str:
            options: dict[str, Any] = {} if way == "environment" else {"proxy": proxy.url}
            if way == "proxy_ssl=":
                options["proxy_ssl"] = world.plain_context()
            return library(world, f"wss://{HOST}:{port}/", **options)

        assert visit() == "hello"
        world.store.pin("proxy.test", [leaf_pin(world.backup)])
        with pytest.raises(Exception, match=r"proxy\.test shows none of its pinned keys") as caught:
            visit()
        assert pin_violation(caught.value) is not None
        assert len(proxy.tunnels) == 1


@each
def test_the_report_of_a_violation_is_delivered(world: World, library: Callable[..., str]) -> None:
    with Inbox() as inbox:
        world.store.pin(HOST, world.header.pins, report_uri=f"http://reports.test:{inbox.port}/hpkp")
        refused(world, lambda: library(world, f"wss://{HOST}:{world.attacker.port}/"))
        report = inbox.next_report()
    assert (report["hostname"], report["port"]) == (HOST, world.attacker.port)


@pytest.mark.parametrize("library", [by_websockets, by_websockets_sync], ids=lambda library: library.__name__)
def test_a_response_that_fails_the_handshake_is_noted_too(world: World, library: Callable[..., str]) -> None:
    response = Response(403, "Forbidden", Headers({"Public-Key-Pins": str(world.header), "Content-Length": "0"}))
    with websocket_site(world, lambda request: response) as port, pytest.raises(InvalidStatus):
        library(world, f"wss://{HOST}:{port}/")
    assert world.store.known_host(HOST) is not None


def test_a_redirect_leads_to_the_next_check_with_its_own_port(world: World) -> None:
    world.pin_site()
    target = f"wss://{HOST}:{world.attacker.port}/"
    response = Response(302, "Found", Headers({"Location": target, "Content-Length": "0"}))
    with websocket_site(world, lambda request: response) as port:
        violation = refused(world, lambda: by_websockets(world, f"wss://{HOST}:{port}/"))
    assert violation.report is not None
    assert violation.report.port == world.attacker.port


def test_a_redirect_from_ws_to_wss_is_enforced_too(world: World, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # websockets would make its own context for that.
    monkeypatch.setenv("SSL_CERT_FILE", str(world.roots_file()))
    target = [f"wss://{HOST}:{port}/"]

    def answer(request: Request) -> Response:
        return Response(302, "Found", Headers({"Location": target[0], "Content-Length": "0"}))

    with websocket_site(world, answer, tls=False) as plain:
        assert by_websockets(world, f"ws://{HOST}:{plain}/") == "hello"
        assert world.store.known_host(HOST) is not None
        target[0] = f"wss://{HOST}:{world.attacker.port}/"
        refused(world, lambda: by_websockets(world, f"ws://{HOST}:{plain}/"))


def test_over_ws_nothing_is_noted(world: World) -> None:
    with websocket_site(world, lambda request: None, tls=False) as plain:
        assert by_websockets(world, f"ws://{HOST}:{plain}/") == "hello"
        assert by_websockets_sync(world, f"ws://{HOST}:{plain}/") == "hello"
    assert len(world.store) == 0


def test_a_refusal_ends_the_loop_that_reconnects(world: World) -> None:
    world.pin_site()

    async def main() -> None:
        uri = f"wss://{HOST}:{world.attacker.port}/"
        connecter = pinned_connect(uri, world.store, ssl=world.plain_context(), proxy=None)
        connecter.reconnect_delays = lambda: pytest.fail("it connects again")  # unknown to older websockets
        async for _ in connecter:
            raise AssertionError("the attacker was let in")

    refused(world, lambda: run(main))


class Early(Site):
    """Answers each request only with an informational response."""

    status = "103 Early Hints"

    def _response(self, request: bytes) -> bytes:
        return self._head(self.status, self.headers)


@pytest.mark.parametrize("way", ["async", "sync"])
@pytest.mark.parametrize("status", ["103 Early Hints", "102 Processing"])
def test_an_informational_response_neither_pins_nor_unpins(world: World, way: str, status: str) -> None:
    with Early(world.certificate) as early:
        early.status = status
        early.headers = [("Public-Key-Pins", str(world.header))]
        uri = f"wss://{HOST}:{early.port}/"

        async def connect() -> None:
            await pinned_connect(uri, world.store, ssl=world.plain_context())

        def visit() -> None:
            if way == "async":
                asyncio.run(connect())
            else:
                pinned_connect_sync(uri, world.store, ssl=world.plain_context())

        with pytest.raises(InvalidStatus):
            visit()
        assert world.store.known_host(HOST) is None
        world.store.note(HOST, str(world.header), [leaf_pin(world.certificate)])
        early.headers = [("Public-Key-Pins", "max-age=0")]
        with pytest.raises(InvalidStatus):
            visit()
        assert world.store.known_host(HOST) is not None
