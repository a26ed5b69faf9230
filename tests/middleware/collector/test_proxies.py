"""The client's address: the one that a trusted proxy names, and otherwise the peer's."""

from __future__ import annotations

import io
import json
import socket
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx
import pytest
import uvicorn
from starlette.testclient import TestClient

from dynpin.middleware.collector import Limits, collector, open_storage, wsgi_intake
from dynpin.middleware.collector.intake import SourceAddress
from dynpin.middleware.collector.proxies import TrustedProxies
from dynpin.middleware.collector.storage import Filter
from tests.middleware.collector.conftest import Start, report

LOOPBACK = ["127.0.0.0/8"]


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded", "client"),
    [
        ([], "127.0.0.1", "203.0.113.7", "127.0.0.1"),
        ([], None, "203.0.113.7", None),
        (LOOPBACK, "127.0.0.1", "203.0.113.7", "203.0.113.7"),
        (LOOPBACK, "::ffff:127.0.0.1", "203.0.113.7", "203.0.113.7"),
        (LOOPBACK, "10.0.0.1", "203.0.113.7", "10.0.0.1"),
        (["::ffff:127.0.0.0/104"], "127.0.0.1", "203.0.113.7", "203.0.113.7"),
        (["::/0"], "127.0.0.1", "203.0.113.7", "127.0.0.1"),
        (["unix"], None, "203.0.113.7", "203.0.113.7"),
        (["unix"], "", "203.0.113.7", "203.0.113.7"),
        (["unix"], "127.0.0.1", "203.0.113.7", "127.0.0.1"),
        # What the client itself sent stands before what the proxy has seen.
        (LOOPBACK, "127.0.0.1", "198.51.100.1, 203.0.113.7", "203.0.113.7"),
        # A chain of proxies that are all trusted.
        (["127.0.0.1", "10.0.0.0/8"], "127.0.0.1", "198.51.100.1, 203.0.113.7, 10.1.1.1", "203.0.113.7"),
        (["10.0.0.0/8"], "10.0.0.1", "10.0.0.2", "10.0.0.2"),
        (LOOPBACK, "127.0.0.1", "203.0.113.7:4711", "203.0.113.7"),
        (LOOPBACK, "127.0.0.1", "[2001:db8::1]:4711", "2001:db8::1"),
        (LOOPBACK, "127.0.0.1", "2001:db8::1", "2001:db8::1"),
        (LOOPBACK, "127.0.0.1", "", "127.0.0.1"),
        (LOOPBACK, "127.0.0.1", "unknown", "127.0.0.1"),
        (LOOPBACK, "127.0.0.1", "203.0.113.7, ", "127.0.0.1"),
        (LOOPBACK, "127.0.0.1", ",".join(["127.0.0.9"] * 100), "127.0.0.9"),
    ],
)
def test_who_asks(trusted: list[str], peer: str | None, forwarded: str, client: str | None) -> None:
    assert TrustedProxies(trusted).client(peer, lambda: forwarded) == client


@pytest.mark.parametrize("name", ["", "10.0.0.1/8", "proxy.internal", "10.0.0.0/99", "*"])
def test_what_is_no_proxy_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a trusted proxy"):
        collector(tmp_path / "r.sqlite", open_access=True, trusted_proxies=[name])


def test_a_user_header_needs_a_proxy(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="anybody could send X-Remote-User"):
        collector(tmp_path / "r.sqlite", user_header="X-Remote-User")


@pytest.mark.parametrize("trusted", [LOOPBACK, []])
def test_a_source_is_whom_the_proxy_names(site: Start, trusted: list[str]) -> None:
    running = site(trusted_proxies=trusted, source_address="whole")
    for client in ("203.0.113.7", "203.0.113.8"):
        assert running.post(report(), **{"x-forwarded-for": client}).status_code == 204
    sources = {entry["source"] for entry in running.reports()}
    assert sources == ({"203.0.113.7", "203.0.113.8"} if trusted else {"127.0.0.1"})


@pytest.mark.parametrize("trusted", [LOOPBACK, ["10.0.0.0/8"]])
def test_a_user_is_believed_from_the_proxy_alone(site: Start, trusted: list[str]) -> None:
    running = site(open_access=False, user_header="X-Remote-User", trusted_proxies=trusted)
    status = running.client.get("/api/groups", headers={"x-remote-user": "ada"}).status_code
    assert status == (200 if trusted is LOOPBACK else 401)
    twice = [("x-remote-user", "ada"), ("x-remote-user", "bob")]
    assert running.client.get("/api/groups", headers=twice).status_code == 401


@pytest.mark.parametrize("trusted", [LOOPBACK, []])
def test_a_cookie_is_secure_where_the_proxy_says_https(site: Start, trusted: list[str]) -> None:
    running = site(open_access=False, password="right", trusted_proxies=trusted)
    answer = running.client.post("/sign-in", data={"password": "right"}, headers={"x-forwarded-proto": "https"})
    assert ("secure" in answer.headers["set-cookie"].lower()) is bool(trusted)


def test_a_new_value_in_each_request_is_no_new_guesser(site: Start) -> None:
    running = site(open_access=False, password="right")
    for number in range(12):
        forged = {"x-forwarded-for": f"203.0.{number}.7"}
        running.client.get("/api/groups", auth=("", "wrong"), headers=forged)
    refused = running.client.get("/api/groups", auth=("", "right"), headers={"x-forwarded-for": "203.0.99.7"})
    assert refused.status_code in (401, 429)


def test_behind_a_unix_socket_each_client_is_a_source(tmp_path: Path) -> None:
    app = collector(
        tmp_path / "r.sqlite", tokens=["demo"], open_access=True, trusted_proxies=["unix"], source_address="/24"
    )
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", proxy_headers=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://x", timeout=60) as client:
            for number in (1, 2):
                fields = {"x-forwarded-for": f"203.0.{number}.7"}
                assert client.post("/r/demo/enforce", json=report(), headers=fields).status_code == 204
            entries = client.get("/api/reports").json()["entries"]
        server.should_exit = True
        thread.join()
    assert {entry["source"] for entry in entries} == {"203.0.1.0/24", "203.0.2.0/24"}


def _note(statuses: list[str], status: str, headers: object, exc_info: object = None) -> Callable[[bytes], object]:
    statuses.append(status)
    return len


def test_wsgi_believes_the_same(tmp_path: Path) -> None:
    body = json.dumps(report()).encode()
    for trusted, sources in (([], {""}), (["unix"], {"", "203.0.113.7"})):
        app = wsgi_intake(tmp_path / "r.sqlite", tokens=["demo"], trusted_proxies=trusted, source_address="whole")
        environ = {
            "REQUEST_METHOD": "POST",
            "PATH_INFO": "/r/demo/enforce",
            "HTTP_X_FORWARDED_FOR": "203.0.113.7",
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.input": io.BytesIO(body),
        }
        statuses: list[str] = []
        app(environ, partial(_note, statuses))
        app.close()
        assert statuses == ["204 No Content"]
        storage = open_storage(tmp_path / "r.sqlite")
        assert {stored.source for stored in storage.reports(Filter()).entries} == sources
        storage.close()


@pytest.mark.parametrize(
    ("text", "bits"),
    [("whole", (32, 128)), ("/24", (24, 48)), ("/24,/48", (24, 48)), ("/16, /32", (16, 32)), ("/0,/0", (0, 0))],
)
def test_what_is_kept_of_an_address(text: str, bits: tuple[int, int]) -> None:
    assert SourceAddress.parse(text) == bits


@pytest.mark.parametrize("text", ["", "24", "/33", "/24,/129", "part", "/24,48"])
def test_what_is_no_part_of_an_address_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a part of an address"):
        collector(tmp_path / "r.sqlite", open_access=True, source_address=text)


def test_a_closed_network_is_many_sources(tmp_path: Path) -> None:
    for source_address, taken in (("whole", 30), ("/24", 10)):
        app = collector(
            tmp_path / f"{taken}.sqlite",
            tokens=["demo"],
            limits=Limits(per_source=10),
            source_address=source_address,
            parts=["intake"],
        )
        statuses = [
            TestClient(app, client=(f"10.0.0.{number % 3}", 1)).post("/r/demo/enforce", json=report()).status_code
            for number in range(30)
        ]
        assert statuses.count(204) == taken
        app.close()
