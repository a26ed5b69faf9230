"""Test doubles for requests and urllib3 replay as in plain clients, and no real request avoids the pins with them."""

from __future__ import annotations

import contextlib
import socketserver
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import pytest
import requests

from dynpin import UnenforceableContext
from dynpin.clientstore import pin_violation
from dynpin.clientstore.requests import PinnedSession
from dynpin.clientstore.urllib3 import pinned_pool_manager
from tests.environments import told_by

from .doubles import URL, by_httpretty, by_mocket, by_strict_mocket
from .sites import Site
from .world import HOST, World

Double = Callable[[World], AbstractContextManager[object]]


def _module(name: str) -> Any:
    return pytest.importorskip(name)


@contextlib.contextmanager
def by_responses(world: World) -> Iterator[object]:
    with _module("responses").RequestsMock() as double:
        double.add("GET", URL, body="replayed")
        yield double


@contextlib.contextmanager
def by_requests_mock(world: World) -> Iterator[object]:
    with _module("requests_mock").Mocker() as double:
        double.get(URL, text="replayed")
        yield double


def _cassette(world: World) -> Path:
    path = world.folder / "cassette.yaml"
    path.write_text(f"""
version: 1
interactions:
- request: {{method: GET, uri: "{URL}", body: null, headers: {{}}}}
  response:
    status: {{code: 200, message: OK}}
    headers: {{Public-Key-Pins: ['{world.header}']}}
    body: {{string: replayed}}
""")
    return path


def by_vcr(world: World) -> AbstractContextManager[object]:
    made: AbstractContextManager[object] = _module("vcr").use_cassette(
        str(_cassette(world)), record_mode="none", allow_playback_repeats=True
    )
    return made


FOR_REQUESTS: list[Double] = [by_responses, by_requests_mock]
FOR_BOTH: list[Double] = [by_vcr, by_mocket, by_strict_mocket, by_httpretty]


def _names(double: Double) -> str:
    return double.__name__


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("own", [False, True], ids=["made", "own"])
@pytest.mark.parametrize("when", ["before", "inside"])
@pytest.mark.parametrize("double", [*FOR_REQUESTS, *FOR_BOTH], ids=_names)
def test_requests_replays(world: World, double: Double, when: str, own: bool) -> None:
    world.pin_site()
    context = world.plain_context() if own else None
    session = PinnedSession(world.store, context=context)
    try:
        with double(world):
            if when == "inside":
                session = PinnedSession(world.store, context=context)
            session.trust_env = False
            assert session.get(URL, timeout=60).text == "replayed"
            assert session.get(URL, timeout=60).text == "replayed"
    finally:
        session.close()
    # After the double is gone the same session is enforced, whatever it made in between.
    ways: dict[str, Any] = {} if own else {"verify": str(world.roots_file())}
    assert session.get(world.site.url(HOST), **ways).status_code == 200
    with pytest.raises(requests.exceptions.SSLError) as caught:
        session.get(world.attacker.url(HOST), **ways)
    assert pin_violation(caught.value) is not None
    caught.value.__traceback__ = None
    session.close()
    world.attacker.wait_idle()
    assert world.attacker.application_bytes == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("when", ["before", "inside"])
@pytest.mark.parametrize("double", FOR_BOTH, ids=_names)
def test_urllib3_replays_and_notes_nothing_of_it(world: World, double: Double, when: str) -> None:
    manager = pinned_pool_manager(world.store, retries=False)
    with double(world):
        if when == "inside":
            manager = pinned_pool_manager(world.store, retries=False)
        assert manager.request("GET", URL).data == b"replayed"
    manager.clear()
    assert len(world.store) == 0


def test_requests_mock_is_mounted(world: World) -> None:
    requests_mock = _module("requests_mock")
    adapter = requests_mock.Adapter()
    adapter.register_uri("GET", URL, text="replayed")
    with PinnedSession(world.store) as session:
        session.mount(f"https://{HOST}", adapter)
        assert session.get(URL).text == "replayed"


# -- doubles that let some requests through ---------------------------------------------------------------------------


@contextlib.contextmanager
def _responses(world: World) -> Iterator[object]:
    with _module("responses").RequestsMock(assert_all_requests_are_fired=False) as double:
        double.add_passthru(f"https://{HOST}")
        yield double


def _requests_mock(world: World) -> AbstractContextManager[object]:
    made: AbstractContextManager[object] = _module("requests_mock").Mocker(real_http=True)
    return made


def _vcr(world: World) -> AbstractContextManager[object]:
    made: AbstractContextManager[object] = _module("vcr").use_cassette(
        str(world.folder / "new.yaml"), record_mode="new_episodes"
    )
    return made


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("own", [False, True], ids=["made", "own"])
@pytest.mark.parametrize("when", ["before", "inside"])
@pytest.mark.parametrize("double", [_responses, _requests_mock, _vcr], ids=["responses", "requests-mock", "vcr"])
def test_a_real_connection_beside_a_double_is_enforced(world: World, double: Double, when: str, own: bool) -> None:
    world.pin_site()
    context = world.plain_context() if own else None
    ways: dict[str, Any] = {"timeout": 60} if own else {"timeout": 60, "verify": str(world.roots_file())}
    session = PinnedSession(world.store, context=context)
    with double(world):
        if when == "inside":
            session = PinnedSession(world.store, context=context)
        session.trust_env = False
        assert session.get(world.site.url(HOST), **ways).text == "hello"
        with pytest.raises(requests.exceptions.SSLError) as caught:
            session.get(world.attacker.url(HOST), headers={"Authorization": "Bearer secret"}, **ways)
        assert pin_violation(caught.value) is not None
        caught.value.__traceback__ = None
        session.close()
    world.attacker.wait_idle()
    assert world.attacker.application_bytes == 0


class _PlainSite(socketserver.BaseRequestHandler):
    """Reads a request without TLS, and answers."""

    heard: ClassVar[list[bytes]]

    def handle(self) -> None:
        self.heard.append(self.request.recv(65_536))
        self.request.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


@pytest.fixture
def plain_site() -> Iterator[tuple[int, list[bytes]]]:
    heard: list[bytes] = []
    handler = type("Handler", (_PlainSite,), {"heard": heard})
    with socketserver.TCPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server.server_address[1], heard
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("own", ["made", "own"])
@pytest.mark.parametrize("when", ["before", "inside"])
@pytest.mark.parametrize("double", [by_mocket, by_httpretty], ids=_names)
def test_a_double_that_would_connect_by_itself_is_refused(
    world: World, plain_site: tuple[int, list[bytes]], double: Double, when: str, own: str
) -> None:
    # In a process of its own: these two would also replace the sockets of the servers.
    pytest.importorskip(double.__name__.removeprefix("by_"))
    world.pin_site("localhost")
    port, heard = plain_site
    with Site(world.rogue.issue_cert("localhost")) as attacker:
        urls = [f"https://localhost:{at}/" for at in (port, attacker.port)]
        visits, pins = "tests.clientstore.doubled_visits", world.folder / "pins"
        told = told_by(sys.executable, visits, pins, str(world.roots_file()), double.__name__, when, own, *urls)
        attacker.wait_idle()
        assert attacker.application_bytes == 0
    assert len(told) == len(urls)
    assert all("would send it without checking the pins" in text for text in told)
    assert b"Bearer secret" not in b"".join(heard)


def test_an_option_set_on_a_connection_of_vcrpy_does_not_avoid_the_pins(world: World) -> None:
    world.pin_site()
    with (
        _module("vcr").use_cassette(str(world.folder / "cassette.yaml"), record_mode="all"),
        pinned_pool_manager(world.store, ssl_context=world.plain_context(), retries=False) as manager,
    ):
        pool: Any = manager.connection_from_host("127.0.0.1", world.attacker.port, scheme="https")
        connection = pool.ConnectionCls("127.0.0.1", port=world.attacker.port, timeout=60)
        connection.assert_hostname = HOST
        with pytest.raises(UnenforceableContext, match=r"assert_hostname='bank\.test'"):
            connection.request("GET", "/", headers={"Authorization": "secret"})
    world.attacker.wait_idle()
    assert world.attacker.application_bytes == 0
