"""Three real nodes behind a real HAProxy, and a collector that is killed: no client is ever refused.

The nodes are processes of uvicorn and gunicorn, each with its own key files, TLS and shared state. Time is the
collector's, by which they all go: a file that the collector reads and the test writes.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from http.client import HTTPResponse
from pathlib import Path

import pytest
import trustme

from dynpin import Pin, PublicKeyPins
from dynpin.clientstore import PinStore
from dynpin.clientstore.enforcement import verified_chain
from dynpin.clientstore.httpx import PinnedClient
from dynpin.lab.network import loopback_names
from dynpin.middleware.collector import new_api_token, open_storage
from dynpin.middleware.policy import read_inventory
from dynpin.middleware.policy.shared import SharedState, SiteDocument
from dynpin.pins import chain_pins
from tests.deploy.commands import dynpin
from tests.middleware.conftest import HOST, Site

MINUTE, HOUR = 60, 3600
BEGIN = 1_800_000_000.0
RAMP = '[ramp]\nsteps = [{ send = "report-only", for = "40 minutes" }, { send = "5 minutes", for = "40 minutes" }]\n'

COLLECTOR = """
import socket, sys
from pathlib import Path
import uvicorn
from dynpin.middleware.collector import collector

clock = Path(sys.argv[2])
options = {"tokens": ["demo"], "password": "long enough to be one"}
app = collector("reports.sqlite", clock=lambda: float(clock.read_text()), **options)
server = uvicorn.Server(uvicorn.Config(app, log_level="error", proxy_headers=False))
server.run(sockets=[socket.socket(fileno=int(sys.argv[1]))])
"""
# What takes seconds in a server takes tenths of them here.
HURRY = """
from dynpin.middleware.policy.ramp import driver
from dynpin.middleware.policy.shared import announcer
from dynpin.middleware.policy.watching import watcher

announcer.every, announcer.interval, watcher.interval, driver.interval = 0.2, 0.1, 0.1, 0.1
"""
ASGI = f"""
import socket, sys
import uvicorn
from dynpin.middleware import PublicKeyPinsMiddleware
{HURRY}

async def app(scope, receive, send):
    await send({{"type": "http.response.start", "status": 200, "headers": []}})
    await send({{"type": "http.response.body", "body": b"ok"}})

served = PublicKeyPinsMiddleware(app, "dynpin.toml")
files = {{"ssl_certfile": "fullchain.pem", "ssl_keyfile": "key.pem"}}
server = uvicorn.Server(uvicorn.Config(served, log_level="warning", lifespan="off", **files))
server.run(sockets=[socket.socket(fileno=int(sys.argv[1]))])
"""
WSGI = f"""
from dynpin.middleware import PublicKeyPinsWSGIMiddleware
{HURRY}

def app(environ, start_response):
    start_response("200 OK", [])
    return [b"ok"]

served = PublicKeyPinsWSGIMiddleware(app, "dynpin.toml")
"""
GUNICORN = ["-m", "gunicorn", "--preload", "--workers=2", "--certfile=fullchain.pem", "--keyfile=key.pem"]
HAPROXY = """
defaults
    mode tcp
    balance roundrobin
    timeout client 60s
    timeout connect 60s
    timeout server 60s
listen site
    bind fd@{bind}
{servers}
"""


Seen = tuple[PublicKeyPins | None, set[Pin]]


def until(holds: Callable[[], bool], what: Callable[[], object]) -> None:
    """Wait for other processes: a minute is what the nodes have to agree."""
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, repr(what())
        time.sleep(0.05)


def terms(header: PublicKeyPins | None) -> object:
    """What a header says; the order of its pins says nothing."""
    return header and (frozenset(header.pins), header.max_age, header.report_only, header.report_uri)


class Process:
    """A process on a socket that the test keeps, so that it may end and begin again on the same port."""

    def __init__(self, folder: Path, command: Callable[[int], list[str]]) -> None:
        self.folder, self.command = folder, command
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.socket.listen()
        self.port: int = self.socket.getsockname()[1]
        self.running: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        handle, home = self.socket.fileno(), {**os.environ, "HOME": str(self.folder)}
        with (self.folder / "log").open("ab") as log:
            self.running = subprocess.Popen(
                self.command(handle),
                cwd=self.folder,
                env=home,
                pass_fds=[handle],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.running is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.running.pid, how)
            self.running.wait(60)
            self.running = None

    def close(self) -> None:
        self.end(signal.SIGKILL)
        self.socket.close()


class Node(Process):
    """One node of the site: its key files, and its server."""

    def __init__(self, ground: Ground, name: str, *, is_gunicorn: bool) -> None:
        self.ground, self.name, self.processes = ground, name, 2 if is_gunicorn else 1
        self.files = Site(ground.folder / name, ground.authority, HOST)
        (self.files.folder / "node.py").write_text(WSGI if is_gunicorn else ASGI)
        gunicorn = [sys.executable, *GUNICORN]
        super().__init__(
            self.files.folder,
            lambda handle: (
                [*gunicorn, f"--bind=fd://{handle}", "node:served"]
                if is_gunicorn
                else [sys.executable, "node.py", str(handle)]
            ),
        )

    def describe(self, keys: str = "fullchain.pem", *backups: str) -> None:
        names = ", ".join(f'"{name}"' for name in backups or ("backup.pub",))
        text = (
            f'hosts = ["{HOST}"]\nkeys = ["{keys}"]\nbackups = [{names}]\n[policy]\nmax_age = "1 hour"\n'
            f'report_uri = "{self.ground.url}/r/demo/enforce"\n{RAMP}[site]\nstate = "{self.ground.url}"\n'
            f'token_file = "../token"\nnode = "{self.name}"\n'
        )
        (self.folder / "new.toml").write_text(text)
        (self.folder / "new.toml").replace(self.folder / "dynpin.toml")

    def seen(self) -> list[Seen]:
        """What each process of the node sends and shows now.

        A worker of gunicorn has one connection at a time: while all are open, each has another worker.
        """
        with ExitStack() as stack:
            opened = [stack.enter_context(self._connect()) for _ in range(self.processes)]
            return [_ask(tls) for tls in opened]

    @contextmanager
    def _connect(self) -> Generator[ssl.SSLSocket]:
        with (
            socket.create_connection(("127.0.0.1", self.port), 60) as plain,
            self.ground.trust.wrap_socket(plain, server_hostname=HOST) as tls,
        ):
            yield tls


def _ask(tls: ssl.SSLSocket) -> Seen:
    chain = set(chain_pins(verified_chain(tls)))
    tls.sendall(f"GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
    response = HTTPResponse(tls)
    response.begin()
    for name in ("Public-Key-Pins", "Public-Key-Pins-Report-Only"):
        value = response.headers.get(name)
        if value is not None:
            return PublicKeyPins.parse(value, report_only=name.endswith("Only")), chain
    return None, chain


class Ground:
    """The site, its collector, its balancer, and a client that visits at random."""

    def __init__(self, folder: Path, authority: trustme.CA, stack: ExitStack) -> None:
        self.folder, self.authority = folder, authority
        self.now = BEGIN
        self.forward(0)
        self.trust = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
        self.collector = Process(
            folder, lambda handle: [sys.executable, "-c", COLLECTOR, str(handle), str(folder / "clock")]
        )
        self.url = f"http://127.0.0.1:{self.collector.port}"
        storage = open_storage(folder / "reports.sqlite", clock=lambda: self.now)
        text, token = new_api_token("nodes", [f"site:{HOST}"], BEGIN, 100)
        assert storage.add_api_token(token)
        storage.close()
        (folder / "token").write_text(text)
        self.nodes = [Node(self, name, is_gunicorn=name == "c") for name in "abc"]
        for node in self.nodes:
            for file in ("fullchain.pem", "key.pem", "backup.pub"):
                (node.folder / file).write_bytes((self.nodes[0].folder / file).read_bytes())
            node.describe()
        (folder / "balancer").mkdir()
        self.balancer = Process(folder / "balancer", self._balance)
        for process in (self.collector, *self.nodes, self.balancer):
            stack.callback(process.close)
            process.start()
        self.random = random.Random(7469)
        stack.enter_context(loopback_names({HOST: self.balancer.port}))
        self.store = stack.enter_context(PinStore(folder / "pins.sqlite", clock=lambda: self.now))
        self.visits = 0

    def _balance(self, handle: int) -> list[str]:
        config = self.folder / "haproxy.cfg"
        servers = "\n".join(f"    server {node.name} 127.0.0.1:{node.port}" for node in self.nodes)
        config.write_text(HAPROXY.format(bind=handle, servers=servers))
        return [shutil.which("haproxy") or "haproxy", "-db", "-f", str(config)]

    def forward(self, seconds: float) -> None:
        self.now += seconds
        (self.folder / "new-clock").write_text(str(self.now))
        (self.folder / "new-clock").replace(self.folder / "clock")

    def visit(self) -> None:
        """A few visits through the balancer, each on a connection of its own; a refusal raises."""
        for _ in range(self.random.randint(1, 6)):
            with PinnedClient(self.store, verify=self.trust, timeout=60) as client:
                assert client.get(f"https://{HOST}/").text == "ok"
            self.visits += 1

    @property
    def state(self) -> SiteDocument:
        source = read_inventory(self.nodes[0].folder / "dynpin.toml").state
        assert source is not None
        return SharedState(source).fetch()

    def check(self) -> list[PublicKeyPins | None]:
        """The headers that the processes of the nodes send now: a client that notes one of them accepts every node."""
        seen = [(node, *each) for node in self.nodes for each in node.seen()]
        for _, header, _ in seen:
            if header is not None and header.max_age:
                assert all(chain.intersection(header.pins) for _, _, chain in seen), self.told(seen)
        self.visit()
        return [header for _, header, _ in seen]

    def told(self, seen: Sequence[tuple[Node, PublicKeyPins | None, set[Pin]]]) -> str:
        """What each process sends and shows, and the end of its node's log."""
        return "\n".join(
            f"{node.name} sends {header}, shows {sorted(map(str, chain))}\n{(node.folder / 'log').read_text()[-1500:]}"
            for node, header, chain in seen
        )

    def agree(self, holds: Callable[[PublicKeyPins], bool]) -> None:
        """All nodes come to send one such header."""
        sent: list[list[PublicKeyPins | None]] = []

        def agreed() -> bool:
            sent.append(self.check())
            told, first = self.state.nodes, sent[-1][0]
            headers = [*sent[-1], *(node.policy for node in told.values())]
            shown = {node.name: ((str(Pin.from_file(node.files.chain)),),) for node in self.nodes}
            is_told = shown == {name: node.chains for name, node in told.items()}
            return first is not None and holds(first) and is_told and len(set(map(terms, headers))) == 1

        until(
            agreed, lambda: [sent[-1], *((node.folder / "log").read_text()[-2000:] for node in self.nodes), self.state]
        )

    def pass_quietly(self, seconds: float) -> None:
        """Time passes, a quarter of an hour at once at most, and the collector is asked each time."""
        end = self.now + seconds
        until(self._is_asked, lambda: self.state)
        while self.now < end:
            self.forward(min(15 * MINUTE, end - self.now))
            until(self._is_asked, lambda: self.state)
            self.check()

    def _is_asked(self) -> bool:
        ramp = self.state.ramp
        return ramp is not None and ramp.position.asked_at is not None and ramp.position.asked_at >= self.now - MINUTE

    def run(self, *arguments: str, on: int = 0, code: int = 0) -> str:
        """What a command says on one of the nodes."""
        at = datetime.fromtimestamp(self.now, UTC).isoformat()
        inventory = str(self.nodes[on].folder / "dynpin.toml")
        result = dynpin(*arguments, "--inventory", inventory, "--now", at)
        assert result.exit_code == code, result.output
        return result.output


@pytest.fixture
def ground(tmp_path: Path, authority: trustme.CA) -> Iterator[Ground]:
    if shutil.which("haproxy") is None:
        pytest.skip("haproxy is not installed: apt-get install haproxy")
    if importlib.util.find_spec("gunicorn") is None:
        pytest.skip("gunicorn is not installed: pip install --group frameworks")
    with ExitStack() as stack:
        yield Ground(tmp_path, authority, stack)


def test_no_client_is_ever_refused(ground: Ground) -> None:
    a, b, c = ground.nodes
    # -- the ramp moves up, for all nodes
    ground.agree(lambda header: header.report_only)
    ground.pass_quietly(45 * MINUTE)
    ground.agree(lambda header: header.max_age == 5 * MINUTE)
    # -- a node is killed and begins again; the collector is killed for a while, and nothing moves up
    c.end(signal.SIGKILL)
    c.start()
    ground.agree(lambda header: header.max_age == 5 * MINUTE)
    ground.collector.end(signal.SIGKILL)
    ground.forward(2 * HOUR)
    b.end()
    b.start()
    for _ in range(5):
        assert [header and header.max_age for header in ground.check()] == [5 * MINUTE] * 4
    ground.collector.start()
    ground.pass_quietly(45 * MINUTE)
    ground.agree(lambda header: header.max_age == HOUR)
    # -- a rotation, from plan to retire
    ground.run("rotate", "record")
    fresh = ground.authority.issue_cert(HOST)
    for node in ground.nodes:
        (node.folder / "next.pem").write_bytes(b"".join(pem.bytes() for pem in fresh.cert_chain_pems))
    new, target = Pin.from_file(a.folder / "next.pem"), str(a.folder / "next.pem")
    ground.run("rotate", "plan", "--to", target, "--start")
    for node in ground.nodes:
        assert "STOP" in ground.run("guard", target, code=1)
        node.describe("fullchain.pem", "next.pem", "backup.pub")
        ground.check()
    ground.agree(lambda header: new in header.pins)
    ground.run("rotate", "next", "--done", on=1)
    assert "STOP" in ground.run("guard", target, code=1)
    ground.pass_quietly(HOUR + 15 * MINUTE)
    assert "fine" in ground.run("guard", target, on=2)
    for node in ground.nodes:
        (node.folder / "old.pem").write_bytes((node.folder / "fullchain.pem").read_bytes())
        node.describe("fullchain.pem", "old.pem", "next.pem", "backup.pub")
        ground.check()
        node.end()
        node.files.deploy(fresh)
        node.start()
        ground.agree(lambda header: new in header.pins)
    ground.run("rotate", "next", "--done", on=2)
    ground.pass_quietly(HOUR + 15 * MINUTE)
    for node in ground.nodes:
        node.describe()
    ground.agree(lambda header: set(header.pins) == {new, Pin.from_file(a.folder / "backup.pub")})
    assert "steady" in ground.run("rotate", "next", "--done")
    known = ground.store.known_host(HOST)
    assert known is not None
    assert new in known.pins
    assert ground.visits > 50
    events = json.loads(ground.state.to_json())["history"]["events"]
    assert [event["event"] for event in events].count("deployed") == 2
