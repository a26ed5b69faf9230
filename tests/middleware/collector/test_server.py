"""The collector on a real socket in a real process: deadlines, a bound on connections, and an end that ends."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sqlite3
import ssl
import subprocess
import threading
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from starlette.types import Message, Receive, Scope, Send

from dynpin.middleware.collector.server import telling
from tests.middleware.collector.conftest import report
from tests.middleware.collector.test_command import collecting
from tests.middleware.collector.test_triage import LEAF

HEAD = "POST /r/demo/enforce HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n"
OPEN = ("--token", "demo", "--open-access")
SOON = ("--head-seconds", "0.3", "--body-seconds", "0.3")
# What a graceful end may take is ten seconds; a busy machine may be slow to say so.
BOUND_S = 30


def dial(pages: str) -> socket.socket:
    address = httpx.URL(pages)
    return socket.create_connection((address.host, address.port or 80), timeout=60)


def everything(connection: socket.socket) -> bytes:
    """What is sent until the other side ends the connection."""
    found = b""
    try:
        while part := connection.recv(65536):
            found += part
    except ConnectionResetError:
        pass
    return found


def send_on(connection: socket.socket, part: bytes) -> None:
    """Send a part again and again, for as long as the other side lets us."""
    while True:
        connection.sendall(part)


def ended(process: subprocess.Popen[str]) -> None:
    """End it gracefully, and wait for that."""
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=BOUND_S)


def reports_in(file: Path) -> int:
    with closing(sqlite3.connect(file)) as db:
        (found,) = db.execute("SELECT count(*) FROM reports").fetchone()
    return int(found)


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"", b""),
        (b"POST /r/demo/enforce HTTP/1.1\r\nhost:", b"HTTP/1.1 408"),
        (HEAD.format(100).encode() + b"{", b"HTTP/1.1 408"),
        (HEAD.format(100).replace("demo", "unknown").encode() + b"{", b"HTTP/1.1 404"),
        (b"POST /sign-in HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\npass", b""),
        (b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\nGET /health", b"HTTP/1.1 200"),
    ],
    ids=["nothing", "head", "body", "body that nobody reads", "form", "second head"],
)
def test_what_is_drawn_out_has_a_deadline(tmp_path: Path, sent: bytes, answer: bytes) -> None:
    with collecting(tmp_path / "r.sqlite", *OPEN, *SOON) as (process, said), dial(said["pages"]) as connection:
        connection.sendall(sent)
        found = everything(connection)
        assert found.startswith(answer) if answer else found == b""
        assert httpx.get(said["pages"] + "healthz", trust_env=False, timeout=60).status_code == 200
        process.terminate()
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


def test_a_body_that_nobody_reads_has_an_end(tmp_path: Path) -> None:
    with collecting(tmp_path / "r.sqlite", *OPEN, *SOON) as (_, said), dial(said["pages"]) as connection:
        connection.sendall(HEAD.format(10**9).replace("demo", "unknown").encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 404")
        with pytest.raises(ConnectionError):
            send_on(connection, b"x")


def test_a_long_answer_has_no_deadline() -> None:
    """An app that streams an answer awaits the end of the connection too, after the whole body."""
    told: list[str] = []

    class Told:
        def __getattr__(self, name: str) -> Callable[[], None]:
            return lambda: told.append(name)

    received: list[Message] = [
        {"type": "http.request", "body": b"x", "more_body": True},
        {"type": "http.request", "body": b"", "more_body": False},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Message:
        return received.pop(0)

    async def send(message: Message) -> None:
        pass

    async def streaming(_: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        told.append("streams")
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    scope: Scope = {"type": "http", "state": {"dynpin.connection": Told()}}

    async def answered() -> None:
        await telling(streaming)(scope, receive, send)

    asyncio.run(answered())
    assert told[: told.index("streams")] == ["request_begins", "body_awaited", "body_awaited", "body_ended"]
    assert "body_awaited" not in told[told.index("streams") :]


def test_a_request_is_measured_as_it_is_sent(tmp_path: Path) -> None:
    """Chunks of one byte frame each byte of a body by five more, and take fifty times as long to read."""
    head = HEAD.replace("content-length: {}", "transfer-encoding: chunked").encode()
    with collecting(tmp_path / "r.sqlite", *OPEN) as (_, said):
        body = json.dumps(report()).encode()
        with dial(said["pages"]) as connection:
            connection.sendall(head + b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n")
            assert connection.recv(4096).startswith(b"HTTP/1.1 204")
        with dial(said["pages"]) as connection:
            connection.sendall(head)
            with pytest.raises(ConnectionError):
                send_on(connection, b"1\r\nx\r\n" * 1000)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[str, ...]:
    """The flags that have a collector serve https."""
    (tmp_path / "leaf.pem").write_text(LEAF.pem)
    key = LEAF.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "leaf.key").write_bytes(key)
    return "--tls-certificate", str(tmp_path / "leaf.pem"), "--tls-key", str(tmp_path / "leaf.key")


def test_a_tls_handshake_has_a_deadline_and_counts(tmp_path: Path, pair: tuple[str, ...]) -> None:
    options = (*OPEN, *pair, "--connections", "3", "--head-seconds")
    with collecting(tmp_path / "r.sqlite", *options, "600") as (process, said), ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(dial(said["pages"])).sendall(b"\x16\x03\x01")
        with dial(said["pages"]) as one_more:
            assert everything(one_more) == b""
        ended(process)
    with collecting(tmp_path / "r.sqlite", *options, "0.5") as (process, said), ExitStack() as stack:
        for sent in (b"", b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n"):
            connection = stack.enter_context(dial(said["pages"]))
            connection.sendall(sent)
            everything(connection)
        # None of them counts any more; what comes together with the end of the handshake is a request.
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        for _ in range(4):
            with context.wrap_socket(dial(said["pages"])) as over_tls:
                over_tls.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                assert everything(over_tls).startswith(b"HTTP/1.1 200")
        ended(process)
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_who_closes_the_terminal_ends_it_gracefully(tmp_path: Path) -> None:
    with collecting(tmp_path / "r.sqlite", *OPEN) as (process, said):
        assert httpx.post(said["report-uri"], json=report(), trust_env=False, timeout=60).status_code == 204
        process.send_signal(signal.SIGHUP)
        assert process.wait(timeout=BOUND_S) == 0
    with closing(sqlite3.connect(tmp_path / "r.sqlite")) as db:
        assert db.execute("SELECT count(*) FROM leases").fetchone() == (0,), "other workers go on at once"


def test_a_slow_body_is_counted(tmp_path: Path) -> None:
    with collecting(tmp_path / "r.sqlite", *OPEN, *SOON) as (_, said), dial(said["pages"]) as connection:
        connection.sendall(HEAD.format(100).encode() + b"{")
        head, _, body = everything(connection).partition(b"\r\n\r\n")
        assert json.loads(body)["error"] == "too-slow"
        assert b"connection: close" in head.lower()
        counted = httpx.get(said["pages"] + "metrics", trust_env=False, timeout=60).text
    assert 'reports_total{outcome="rejected",reason="too-slow"} 1\n' in counted


def test_a_connection_is_used_again_while_there_is_something_to_do(tmp_path: Path) -> None:
    with (
        collecting(tmp_path / "r.sqlite", *OPEN, "--head-seconds", "5", "--body-seconds", "5") as (_, said),
        dial(said["pages"]) as connection,
    ):
        body = json.dumps(report()).encode()
        request = HEAD.format(len(body)).encode() + body
        for _ in range(3):
            connection.sendall(request[:40])
            connection.sendall(request[40:])
            assert connection.recv(4096).startswith(b"HTTP/1.1 204")
        connection.sendall(request * 3)
        found = b""
        while found.count(b"HTTP/1.1 204") < 3:
            found += connection.recv(4096)
    assert reports_in(tmp_path / "r.sqlite") == 6


@pytest.mark.parametrize("bound", ["--connections", "--connections-source"])
def test_connections_have_a_bound(tmp_path: Path, bound: str) -> None:
    with collecting(tmp_path / "r.sqlite", *OPEN, bound, "3") as (_, said), ExitStack() as stack:
        few = [stack.enter_context(dial(said["pages"])) for _ in range(3)]
        for connection in few:
            connection.sendall(HEAD.format(9).encode())  # and no body: the connection stays
        with dial(said["pages"]) as one_more:
            assert everything(one_more) == b""
        few[0].close()
        while True:  # until the end of the other has been seen
            with dial(said["pages"]) as again:
                again.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                if everything(again).startswith(b"HTTP/1.1 200"):
                    break


def test_a_proxy_that_is_trusted_may_have_more(tmp_path: Path) -> None:
    options = (*OPEN, "--connections-source", "1", "--trusted-proxy", "127.0.0.0/8")
    with collecting(tmp_path / "r.sqlite", *options) as (_, said), ExitStack() as stack:
        for _ in range(3):
            connection = stack.enter_context(dial(said["pages"]))
            connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            assert connection.recv(4096).startswith(b"HTTP/1.1 200")


def test_an_end_waits_for_nobody_who_draws_it_out(tmp_path: Path) -> None:
    with collecting(tmp_path / "r.sqlite", *OPEN, "--head-seconds", "600", "--body-seconds", "600") as (process, said):
        with ExitStack() as stack:
            for sent in (b"", b"GET /", HEAD.format(100).encode(), HEAD.format(100).encode() + b"{") * 10:
                connection = stack.enter_context(dial(said["pages"]))
                connection.sendall(sent)
            answered = stack.enter_context(dial(said["pages"]))
            answered.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            assert answered.recv(4096).startswith(b"HTTP/1.1 200")
            ended(process)
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_an_end_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    with collecting(tmp_path / "r.sqlite", *OPEN, "--limit-source", "1000000") as (process, said):
        acknowledged: list[int] = []
        under_way = threading.Semaphore(0)

        def send() -> None:
            with httpx.Client(trust_env=False, timeout=60) as client:
                try:
                    while True:
                        status = client.post(said["report-uri"], json=report()).status_code
                        acknowledged.append(status)
                        under_way.release()
                except httpx.TransportError:
                    under_way.release()

        senders = [threading.Thread(target=send) for _ in range(8)]
        for sender in senders:
            sender.start()
        for _ in range(40):
            assert under_way.acquire(timeout=60)
        ended(process)
        for sender in senders:
            sender.join()
    assert set(acknowledged) == {204}
    assert reports_in(tmp_path / "r.sqlite") >= len(acknowledged)


def test_an_end_does_not_wait_for_a_file_that_is_locked(tmp_path: Path) -> None:
    file = tmp_path / "r.sqlite"
    with collecting(file, *OPEN) as (process, said), closing(sqlite3.connect(file, isolation_level=None)) as other:
        assert httpx.post(said["report-uri"], json=report(), trust_env=False, timeout=60).status_code == 204
        other.execute("BEGIN IMMEDIATE")
        with dial(said["pages"]) as connection:
            body = json.dumps(report()).encode()
            connection.sendall(HEAD.format(len(body)).encode() + body)
            ended(process)
            assert not everything(connection).startswith(b"HTTP/1.1 2")
        other.execute("ROLLBACK")
    assert reports_in(file) == 1
