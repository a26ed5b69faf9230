"""Answers that are not HTTP, or have no end: clients built on http.client fail as they do without pins, and soon."""

from __future__ import annotations

import http.client
from collections.abc import Callable
from typing import Any

import pytest
import requests
import trustme
import urllib3

from dynpin.clientstore.http_client import PinnedHTTPSConnection
from dynpin.clientstore.requests import PinnedSession
from dynpin.clientstore.urllib3 import pinned_pool_manager

from .sites import Site
from .world import HOST, World


class _Raw(Site):
    """Answers each request with these bytes."""

    answer = b""

    def _response(self, request: bytes) -> bytes:
        return self.answer


def _by_http_client(world: World, port: int) -> object:
    connection = PinnedHTTPSConnection(HOST, port, store=world.store, context=world.plain_context(), timeout=60)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status
    finally:
        connection.close()


def _by_urllib3(world: World, port: int) -> object:
    with pinned_pool_manager(world.store, ssl_context=world.plain_context(), retries=False) as manager:
        return manager.request("GET", f"https://{HOST}:{port}/").status


def _by_requests(world: World, port: int) -> object:
    with PinnedSession(world.store, context=world.plain_context()) as session:
        return session.get(f"https://{HOST}:{port}/", timeout=60).status_code


VISITS: list[tuple[Callable[[World, int], object], Any]] = [
    (_by_http_client, http.client.HTTPException),
    (_by_urllib3, urllib3.exceptions.ProtocolError),
    (_by_requests, requests.exceptions.ConnectionError),
]
ANSWERS = {
    "no status line": (b"hello\r\n\r\n", "hello"),
    "only 100 Continue": (b"HTTP/1.1 100 Continue\r\n\r\n" * 2000, "more than 1000 lines"),
    "only 103 Early Hints": (b"HTTP/1.1 103 Early Hints\r\n\r\n" * 2000, "more than 1000 lines"),
}


@pytest.mark.parametrize(("visit", "error"), VISITS, ids=["http.client", "urllib3", "requests"])
@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_that_is_not_http_is_the_librarys_own_error(
    world: World, honest: trustme.CA, visit: Callable[[World, int], object], error: type[Exception], answer: str
) -> None:
    with _Raw(world.certificate) as site:
        site.answer, said = ANSWERS[answer]
        with pytest.raises(error, match=said):
            visit(world, site.port)
    assert world.store.hosts() == []


@pytest.mark.parametrize(("visit", "error"), VISITS, ids=["http.client", "urllib3", "requests"])
def test_a_few_informational_responses_are_skipped(
    world: World, visit: Callable[[World, int], object], error: type[Exception]
) -> None:
    with _Raw(world.certificate) as site:
        head = f"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nPublic-Key-Pins: {world.header}\r\n\r\n"
        informational = b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\nHTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n"
        site.answer = informational * 10 + head.encode()
        assert visit(world, site.port) == 200
    assert [known.host for known in world.store.hosts()] == [HOST]
