"""A client without a store shares the user's own, and the last client that is closed closes it."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
import urllib3

from dynpin import PinValidationError
from dynpin.clientstore.http_client import PinnedHTTPSConnection, PinnedHTTPSHandler
from dynpin.clientstore.requests import PinnedAdapter, PinnedSession
from dynpin.clientstore.urllib3 import pinned_pool_manager
from tests.environments import descriptors_of

from .world import HOST, World


@pytest.fixture
def users_own(world: World, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = world.folder / "users-own" / "pins.sqlite"
    monkeypatch.setenv("DYNPIN_STORE", str(path))
    return path


def _requests(world: World) -> Callable[[], object]:
    session = PinnedSession(context=world.plain_context())
    session.trust_env = False
    session.get(world.site.url(HOST))
    return session.close


def _urllib3(world: World) -> Callable[[], object]:
    manager = pinned_pool_manager(ssl_context=world.plain_context())
    manager.request("GET", world.site.url(HOST))
    return manager.clear


def _urllib3_by_with(world: World) -> Callable[[], object]:
    manager = pinned_pool_manager(ssl_context=world.plain_context())
    with manager:
        manager.request("GET", world.site.url(HOST))
    return lambda: manager.__exit__(None, None, None)


def _http_client(world: World) -> Callable[[], object]:
    connection = PinnedHTTPSConnection(HOST, world.site.port, context=world.plain_context())
    for _ in range(2):  # a closed client can be used again
        connection.request("GET", "/")
        connection.getresponse().read()
        connection.close()
    connection.request("GET", "/")
    connection.getresponse().read()
    return connection.close


def _http_client_closed_by_the_server(world: World) -> Callable[[], object]:
    world.site.headers = [("Connection", "close"), ("Public-Key-Pins", str(world.header))]
    connection = PinnedHTTPSConnection(HOST, world.site.port, context=world.plain_context())
    connection.request("GET", "/")
    connection.getresponse().read()
    return lambda: None


def _http_client_refused(world: World) -> Callable[[], object]:
    connection = PinnedHTTPSConnection(HOST, world.site.port, context=world.plain_context())
    connection.pin_store.pin(HOST, [*world.header.pins])
    connection.host, connection.port = HOST, world.attacker.port
    with pytest.raises(PinValidationError):
        connection.request("GET", "/")
    return lambda: None


def _urllib_request(world: World) -> Callable[[], object]:
    handler = PinnedHTTPSHandler(context=world.plain_context())
    urllib_request = __import__("urllib.request").request
    with urllib_request.build_opener(handler).open(world.site.url(HOST)) as response:
        response.read()
    return handler.close


@pytest.mark.parametrize(
    "client",
    [
        *(_requests, _urllib3, _urllib3_by_with, _http_client, _http_client_closed_by_the_server),
        *(_http_client_refused, _urllib_request),
    ],
    ids=lambda client: client.__name__,
)
def test_thirty_clients_leave_no_descriptor(
    world: World, users_own: Path, client: Callable[[World], Callable[[], object]]
) -> None:
    closes = [client(world) for _ in range(30)]
    assert users_own.exists()
    for close in closes:
        close()
    assert descriptors_of(users_own) == 0


COPIES: dict[str, Callable[[Any], Any]] = {"pickle": pickle.dumps, "deepcopy": copy.deepcopy}


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("made", [PinnedSession, PinnedAdapter], ids=lambda made: made.__name__)
def test_requests_a_copy_for_another_process_is_refused_when_it_is_made(world: World, made: Any, way: str) -> None:
    with pytest.raises(TypeError, match=r"cannot be pickled or copied.*make another one where you need it"):
        COPIES[way](made(world.store))


def test_requests_a_shallow_copy_of_a_session_shares_its_adapter(world: World) -> None:
    with PinnedSession(world.store, context=world.plain_context()) as session:
        assert copy.copy(session).get(world.site.url(HOST)).status_code == 200
        with pytest.raises(requests.exceptions.SSLError):
            copy.copy(session).get(world.attacker.url(HOST))


def test_pyopenssl_in_the_place_of_ssl_is_refused_by_name(world: World) -> None:
    pyopenssl = pytest.importorskip("urllib3.contrib.pyopenssl")
    roots = world.folder / "roots.pem"
    roots.write_bytes(world.honest.cert_pem.bytes())
    before = PinnedSession(world.store, context=world.plain_context())
    attempts: list[Callable[[], object]] = [
        lambda: before.get(world.site.url(HOST)),
        lambda: PinnedSession(world.store).get(world.site.url(HOST), verify=str(roots)),
        lambda: PinnedSession(world.store, context=world.plain_context()),
        lambda: pinned_pool_manager(world.store, ca_certs=str(roots)),
        lambda: pinned_pool_manager(world.store, ssl_context=world.plain_context()),
    ]
    pyopenssl.inject_into_urllib3()
    try:
        for attempt in attempts:
            with pytest.raises(TypeError, match=r"pyOpenSSL.*extract_from_urllib3\(\)"):
                attempt()
    finally:
        pyopenssl.extract_from_urllib3()
    assert before.get(world.site.url(HOST)).status_code == 200
    assert not urllib3.util.ssl_.IS_PYOPENSSL
