"""One request to one node: real TLS on loopback, and every way in which a node gives no answer."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from dynpin import Pin
from dynpin.deploy.agreement import SILENT_AFTER
from dynpin.deploy.nodes import look_at_node, look_at_paths, nodes_of, why_silent
from dynpin.durations import duration
from dynpin.middleware.policy import Inventory
from dynpin.middleware.policy.shared import HEARD_EVERY, announcer
from tests.deploy.servers import Site, make_site
from tests.deploy.test_check import HOST, serving
from tests.environments import ROOT


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make_site(tmp_path / "site", HOST)


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


def test_a_node_is_asked_by_its_address_in_the_name_of_the_site(site: Site) -> None:
    seen: list[str | None] = []
    fields = {"Public-Key-Pins": "a", "X-Other": "b"}
    with serving(
        lambda path: (404, fields, path), site, "127.0.0.2", choose=lambda _, name, __: seen.append(name)
    ) as port:
        look = look_at_node(HOST, port, "127.0.0.2", site.client(), path="/a?b")
    assert seen == [HOST]
    assert (look.address, look.port, look.status, look.body, look.failure) == ("127.0.0.2", port, 404, b"/a?b", None)
    assert look.values("public-key-pins") == ("a",)
    assert Pin.from_certificate(look.served[0]) == Pin.from_certificate(look.validated[0]) == Pin.from_file(site.chain)
    # The server sends the leaf, and the client builds the chain up to the root.
    assert (len(look.served), len(look.validated)) == (1, 2)


@pytest.mark.parametrize(("named", "reason"), [("other.example", "Hostname mismatch"), (HOST, "unable to get local")])
def test_a_chain_that_does_not_verify_is_a_failure_with_the_reason(
    site: Site, tmp_path: Path, named: str, reason: str
) -> None:
    other = make_site(tmp_path / "other", named)
    roots = other if named != HOST else site
    with serving(lambda path: (200, {"Public-Key-Pins": "a"}, ""), other) as port:
        look = look_at_node(HOST, port, "127.0.0.1", roots.client())
    assert look.failure is not None
    assert reason in look.failure
    assert ("--ca FILE" in look.failure) == (named == HOST)
    assert (look.status, look.values("Public-Key-Pins"), look.validated) == (200, ("a",), ())
    assert Pin.from_certificate(look.served[0]) == Pin.from_file(other.chain)


def test_a_line_of_cpython_is_no_reason() -> None:
    closed = ssl.MemoryBIO()
    closed.write_eof()
    with pytest.raises(ssl.SSLEOFError, match="_ssl") as ended:
        ssl.create_default_context().wrap_bio(closed, ssl.MemoryBIO(), server_hostname=HOST).do_handshake()
    assert why_silent(ended.value) == "EOF occurred in violation of protocol"


def test_nobody_listens(site: Site) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        look = look_at_node(HOST, bound.getsockname()[1], "127.0.0.1", site.client())
    assert (look.status, look.failure) == (None, "Connection refused")


def test_a_port_of_plain_http(site: Site) -> None:
    def answer(listening: socket.socket) -> None:
        accepted, _ = listening.accept()
        with accepted, suppress(OSError):  # the client leaves as soon as it sees this
            accepted.recv(4096)
            accepted.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            accepted.shutdown(socket.SHUT_WR)
            accepted.recv(4096)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=answer, args=(listening,))
        thread.start()
        look = look_at_node(HOST, listening.getsockname()[1], "127.0.0.1", site.client())
        thread.join()
    assert (look.status, look.failure) == (None, "it does not speak TLS on this port: is it the port of plain http?")


def test_a_node_that_says_nothing_is_left_in_time(site: Site, silent: int) -> None:
    look = look_at_node(HOST, silent, "127.0.0.1", site.client(), timeout=0.05)
    assert (look.status, look.failure) == (None, "no answer in time")


@contextmanager
def raw(site: Site, answers: Sequence[bytes], *, is_endless: bool = False) -> Iterator[tuple[int, list[int]]]:
    """A server that writes these bytes for each request, and how many requests each connection brought."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(site.both)
    counts: list[int] = []
    over = threading.Event()

    def serve(server: socket.socket) -> None:
        left = list(answers)
        while left:
            try:
                plain, _ = server.accept()
                with context.wrap_socket(plain, server_side=True) as tls:
                    counts.append(0)
                    while left and tls.recv(4096):
                        counts[-1] += 1
                        sent = left.pop(0)
                        tls.sendall(sent)
                        while is_endless and not over.is_set():
                            tls.sendall(b"x")
                            over.wait(0.01)  # one byte at a time, for ever
                        if b"close-after" in sent:
                            break
            except OSError:
                return

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, args=(server,))
        thread.start()
        try:
            yield int(server.getsockname()[1]), counts
        finally:
            over.set()
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


@dataclass(frozen=True)
class Case:
    answers: tuple[bytes, ...]
    statuses: tuple[int | None, ...]
    connections: tuple[int, ...]
    failure: str | None = None


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CASES = {
    "one connection": Case((OK, OK, OK), (200, 200, 200), (3,)),
    "the server says that it closes": Case(
        (OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), OK, OK), (200, 200, 200), (1, 2)
    ),
    "the server closes in silence": Case(
        (OK.replace(b"\r\n\r\n", b"\r\nX: close-after\r\n\r\n"), OK, OK), (200, 200, 200), (1, 2)
    ),
    "no HTTP": Case((b"SSH-2.0\r\n\r\n close-after",), (None,), (1,), "the answer is not HTTP (BadStatusLine)"),
    "nothing": Case((b"",), (None,), (1,), "the connection was closed without an answer"),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_several_paths_over_as_few_connections_as_the_server_allows(site: Site, case: Case) -> None:
    with raw(site, case.answers) as (port, counts):
        looks = look_at_paths(HOST, port, "127.0.0.1", site.client(), ["/", "/a", "/b"])
    assert tuple(look.status for look in looks) == case.statuses
    assert looks[-1].failure == case.failure
    assert tuple(counts) == case.connections


def test_an_answer_that_comes_byte_by_byte_is_cut_off(site: Site) -> None:
    with raw(site, [b"HTTP/1.1 200 OK\r\nX: "], is_endless=True) as (port, _):
        look = look_at_node(HOST, port, "127.0.0.1", site.client(), timeout=0.2)
    assert (look.status, look.failure) == (None, "no answer in time")


def test_nodes_are_those_of_the_dns_and_those_that_are_named() -> None:
    named = ("10.0.0.5:8443", "[2001:db8::5]:443", "127.0.0.1:1", "10.0.0.5:8443")
    assert nodes_of(None, "127.0.0.1", 1) == (("127.0.0.1", 1),)
    assert nodes_of(Inventory(keys=(), nodes=named), "127.0.0.1", 1) == (
        ("127.0.0.1", 1),
        ("10.0.0.5", 8443),
        ("2001:db8::5", 443),
    )


def test_the_page_says_how_often_a_node_is_heard() -> None:
    page = " ".join((ROOT / "docs" / "how-to" / "several-nodes.md").read_text("utf-8").split())
    assert f"ask every {duration(announcer.every)}, in a thread" in page
    assert f"otherwise every {duration(HEARD_EVERY)}, to say that it runs" in page
    assert f"If a node was not heard for {duration(SILENT_AFTER)}, `dynpin nodes list` says so" in page
