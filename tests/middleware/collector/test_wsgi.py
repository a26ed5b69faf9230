"""The same intake behind WSGI: Flask on a real threaded server."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from flask import Flask
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.serving import make_server

from dynpin.middleware.collector import Limits, open_storage, wsgi_intake
from dynpin.middleware.collector.storage import Filter
from tests.middleware.collector.conftest import VECTORS, report
from tests.middleware.collector.test_intake import ANSWERS


@pytest.fixture(scope="module")
def flask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, Path]]:
    """A Flask app with the intake mounted under /pins."""
    file = tmp_path_factory.mktemp("wsgi") / "reports.sqlite"
    intake = wsgi_intake(file, tokens=["demo"], limits=Limits(body=65_536))
    app = Flask("shop")
    app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/pins": intake})  # type: ignore[method-assign]  # Flask's own way
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    with httpx.Client(base_url=f"http://127.0.0.1:{server.server_port}/pins", trust_env=False, timeout=120) as client:
        yield client, file
    server.shutdown()
    thread.join()
    server.server_close()
    intake.close()


@pytest.mark.parametrize("sent", VECTORS, ids=lambda v: v["id"])
def test_the_answers_are_those_of_asgi(flask: tuple[httpx.Client, Path], sent: dict[str, object]) -> None:
    client, _ = flask
    body = sent["body"] if isinstance(sent["body"], str) else json.dumps(sent["body"])
    answer = client.request(
        str(sent["method"]), "/r/demo/enforce", content=body, headers={"content-type": str(sent["content_type"])}
    )
    status, code, _ = ANSWERS[str(sent["id"])]
    assert answer.status_code == status
    assert code in answer.text


def test_what_was_acknowledged_is_in_the_file(flask: tuple[httpx.Client, Path]) -> None:
    client, file = flask
    threads = [
        threading.Thread(
            target=client.post, args=("/r/demo/enforce",), kwargs={"json": report(hostname=f"{n}.wsgi.test")}
        )
        for n in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    storage = open_storage(file)
    hosts = {stored.group.host for stored in storage.reports(Filter(), limit=100).entries}
    storage.close()
    assert {f"{n}.wsgi.test" for n in range(12)} <= hosts


def test_too_large_and_elsewhere(flask: tuple[httpx.Client, Path]) -> None:
    client, _ = flask
    assert client.post("/r/demo/enforce", content=b"[" * 70_000).status_code == 413
    assert client.post("/r/other/enforce", json=report()).status_code == 404


def test_a_length_that_is_no_number_ends_in_no_500(flask: tuple[httpx.Client, Path]) -> None:
    """Python's isdigit() is true for ², which int() refuses; some servers pass it on."""
    client, _ = flask
    with socket.create_connection((client.base_url.host, client.base_url.port or 80), timeout=60) as connection:
        head = "POST /pins/r/demo/enforce HTTP/1.1\r\nhost: x\r\ncontent-length: ²\r\n\r\n{}"
        connection.sendall(head.encode("latin-1"))
        assert b" 400 " in connection.recv(4096).splitlines()[0]
