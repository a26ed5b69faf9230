"""A collector on a real socket: uvicorn in a thread, a file for its storage, a clock that stands."""

from __future__ import annotations

import json
import queue
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from dynpin.lab.loopback import LoopbackServer
from dynpin.middleware.collector import Storage, collector
from dynpin.middleware.collector.app import Collector
from dynpin.middleware.collector.intake import Answer
from dynpin.middleware.collector.service import Service
from dynpin.middleware.collector.worker import alerts
from tests.clock import BASE, Clock

NOW = BASE
# What speaks http needs none, and reading those of the system takes longer than most tests.
_NO_ROOTS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "reports.json").read_text())["requests"]

Entries = list[dict[str, Any]]


@contextmanager
def serving(app: Any, **options: Any) -> Iterator[str]:
    """Serve an ASGI app with uvicorn on loopback; gives its base URL, which is https with `ssl_certfile`."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="on", proxy_headers=False, **options))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        # The socket listens from the start, so that a request waits for the server, and nobody polls.
        listener.listen()
        scheme = "https" if "ssl_certfile" in options else "http"
        yield f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@dataclass
class Site:
    """A running collector."""

    url: str
    clock: Clock
    file: Path
    client: httpx.Client
    app: Collector

    @property
    def storage(self) -> Storage:
        return self.app.service.storage

    def work(self) -> None:
        """Do what the worker would within seconds."""
        while self.app.service.worker.work():
            pass

    def post(self, report: object, path: str = "/r/demo/enforce", **headers: str) -> httpx.Response:
        content = report if isinstance(report, bytes | str) else json.dumps(report)
        return self.client.post(path, content=content, headers={"content-type": "application/json", **headers})

    def reports(self, query: str = "") -> Entries:
        self.work()
        entries: Entries = self.client.get(f"/api/reports?{query}").raise_for_status().json()["entries"]
        return entries

    def groups(self, query: str = "") -> Entries:
        self.work()
        entries: Entries = self.client.get(f"/api/groups?{query}").raise_for_status().json()["entries"]
        return entries


@pytest.fixture(autouse=True)
def patient_alerts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look waits for what it sends, however slow the machine is."""
    monkeypatch.setattr(alerts, "_WAIT_S", 60.0)


Start = Callable[..., Site]


@contextmanager
def running_site(**options: Any) -> Iterator[Site]:
    """A collector that runs; the keywords are those of `collector`, and `file`. What its worker does, a test says."""
    clock, file = options.pop("clock", None) or Clock(), options.pop("file")
    options = {"tokens": ["demo"], "open_access": True, "parts": ["intake", "web"], **options}
    app = collector(file, clock=clock, **options)
    with (
        serving(app) as url,
        httpx.Client(base_url=url, trust_env=False, timeout=120, verify=_NO_ROOTS) as client,
    ):
        yield Site(url, clock, file, client, app)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Start]:
    """Starts a collector; the keywords are those of `running_site`."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(running_site(**{"file": tmp_path / "reports.sqlite", **options}))


def vector(identity: str) -> dict[str, Any]:
    """One request of tests/vectors/reports.json."""
    found: dict[str, Any] = next(entry for entry in VECTORS if entry["id"] == identity)
    return found


def report(**members: object) -> dict[str, object]:
    """A sound report, with these members in place of its own (`known_pins` for ``known-pins``)."""
    sound: dict[str, object] = dict(vector("m-unknown-key")["body"])
    del sound["failure-mode"]
    return sound | {name.replace("_", "-"): value for name, value in members.items()}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A collector that many tests write to."""
    with running_site(file=tmp_path_factory.mktemp("running") / "reports.sqlite") as running:
        yield running


def posted(service: Service, body: object, *, token: str = "demo", source: str | None = "192.0.2.1") -> int:
    """Give the intake of a service a report, as JSON or as bytes: the status of the answer, once it is stored."""
    admission = service.intake.admit("POST", f"/r/{token}/enforce", source)
    if isinstance(admission, Answer):
        return admission.status
    taken = service.intake.take(admission, body if isinstance(body, bytes) else json.dumps(body).encode())
    if taken.stored is not None:
        taken.stored.result()
    return taken.answer.status


class Inbox(queue.Queue[dict[str, str]]):
    """What a chat server was told, in the order of its arrival; `address` is the server's."""

    address: str

    def next(self) -> dict[str, str]:
        return self.get(timeout=120)


@pytest.fixture
def hook() -> Iterator[Inbox]:
    """A chat server that keeps what it is told."""
    inbox = Inbox()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told = json.loads(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()
            inbox.put(told)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            pass

    with LoopbackServer(Handler) as server:
        inbox.address = f"127.0.0.1:{server.server_port}"
        yield inbox
