"""Several collectors on a pair of PostgreSQL servers: a report answered with 204 is stored once, also after a kill."""

from __future__ import annotations

import re
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from dynpin.middleware.collector.storage import Filter, migrate_storage, open_storage
from tests.deploy.servers import make_site, program, reserved_port
from tests.environments import ROOT
from tests.middleware.collector.conftest import report
from tests.middleware.collector.test_command import collecting
from tests.postgres import Cluster, pair, running
from tests.programs import end

# Far beyond what anything here takes: where the code is right, nobody waits so long.
PATIENCE = 120.0
MANY = [word for name in ("source", "token", "all") for word in (f"--limit-{name}", "10000000")]
INTAKE = ["--part", "intake", "--token", "demo", *MANY]


class Load:
    """A thread for each address that sends one report after the other, each about a host of its own.

    Attributes:
        stored: hosts whose report was answered with 204, by address.
        refused: how often something else came, or nothing, by address.
        answers: the answers that were not 204.
    """

    def __init__(self, uris: Sequence[str], threads: int = 1, trust: ssl.SSLContext | bool = True) -> None:
        self._trust = trust
        self.stored: dict[str, list[str]] = {uri: [] for uri in uris}
        self.refused = dict.fromkeys(uris, 0)
        self.answers: list[httpx.Response] = []
        self._changed = threading.Condition()
        self._ends = threading.Event()
        self._threads = [
            threading.Thread(target=self._send, args=(uri, f"n{number}-{one}"))
            for number, uri in enumerate(uris)
            for one in range(threads)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ends()

    def ends(self) -> None:
        """Send nothing more, and wait for the last answers."""
        self._ends.set()
        for thread in self._threads:
            thread.join()

    def _send(self, uri: str, name: str) -> None:
        number = 0
        with httpx.Client(trust_env=False, timeout=PATIENCE, verify=self._trust) as client:
            while not self._ends.is_set():
                number += 1
                host = f"{name}-{number}.test"
                answer = None
                with suppress(httpx.TransportError):  # the process was killed
                    answer = client.post(uri, json=report(hostname=host, noted_hostname=host))
                with self._changed:
                    if answer is not None and answer.status_code == 204:
                        self.stored[uri].append(host)
                    else:
                        self.refused[uri] += 1
                        self.answers += [] if answer is None else [answer]
                    self._changed.notify_all()

    def until(self, reached: Callable[[], bool]) -> None:
        """Wait for something that the answers tell."""
        with self._changed:
            assert self._changed.wait_for(reached, PATIENCE), (self.refused, [one.text for one in self.answers[-3:]])

    def stores(self, more: int = 20) -> None:
        """Wait until every address has answered so many more reports with 204."""
        wanted = {uri: len(hosts) + more for uri, hosts in self.stored.items()}
        self.until(lambda: all(len(self.stored[uri]) >= number for uri, number in wanted.items()))

    def refuses(self) -> None:
        """Wait until every address has stored nothing of a report that was sent after this call."""
        wanted = {uri: number + 2 for uri, number in self.refused.items()}
        self.until(lambda: all(self.refused[uri] >= number for uri, number in wanted.items()))

    def check(self, dsn: str, *, is_balanced: bool = False) -> None:
        """Compare what was answered with what is there."""
        for answer in self.answers:
            # A balancer gives 502 where a node died with the request, and 503 until it has noticed.
            assert answer.status_code in ({502, 503} if is_balanced else {503}), answer.text
            assert is_balanced or int(answer.headers["retry-after"]) > 0
        storage = open_storage(dsn)
        there = {host: reports for host, _, reports in storage.tally(Filter(), "host", limit=1_000_000)}
        storage.close()
        acknowledged = {host for hosts in self.stored.values() for host in hosts}
        assert acknowledged - there.keys() == set(), "acknowledged, and lost"
        assert {host: number for host, number in there.items() if number != 1} == {}, "stored twice"


@contextmanager
def intakes(dsn: str, number: int, *options: str) -> Iterator[tuple[list[subprocess.Popen[str]], list[str]]]:
    """So many processes of the intake; gives them, and where each of them takes reports."""
    with ExitStack() as stack:
        started = [stack.enter_context(collecting(dsn, *INTAKE, *options)) for _ in range(number)]
        yield [process for process, _ in started], [f"{said['listening']}/r/demo/enforce" for _, said in started]


@pytest.fixture
def storage(cluster: Cluster) -> Iterator[str]:
    """An empty storage on the server of this process of the tests."""
    with cluster.database(cluster.template("collector", migrate_storage)) as dsn:
        yield dsn


@contextmanager
def storage_on_a_pair() -> Iterator[tuple[Cluster, Cluster, str]]:
    with pair() as (primary, standby), primary.database() as dsn:
        migrate_storage(dsn)
        name = dsn.rpartition("/")[2]
        yield primary, standby, primary.dsn(name, standby, target_session_attrs="read-write")


def test_a_killed_primary_loses_nothing() -> None:
    with storage_on_a_pair() as (primary, standby, dsn), intakes(dsn, 4) as (_, uris), Load(uris, 2) as load:
        load.stores()
        primary.kill()
        load.refuses()
        standby.promote()
        promoted = time.monotonic()
        load.stores(1)
        took = time.monotonic() - promoted
        load.stores()
        # It takes about a second; the rest is for a busy machine.
        assert took < 30
        load.ends()
        load.check(dsn)


def test_without_its_standby_nothing_is_acknowledged() -> None:
    """A commit that one server alone has would be lost with it."""
    with storage_on_a_pair() as (_, standby, dsn), intakes(dsn, 2) as (_, uris), Load(uris) as load:
        load.stores()
        standby.kill()
        load.refuses()
        stored = {uri: len(hosts) for uri, hosts in load.stored.items()}
        load.refuses()
        assert stored == {uri: len(hosts) for uri, hosts in load.stored.items()}
        standby.start()
        load.stores()
        load.ends()
        load.check(dsn)


@pytest.mark.parametrize("away", ["stopped", "killed", "frozen"])
def test_a_database_that_was_away_is_found_again(away: str) -> None:
    with (
        running() as server,
        server.database(server.template("storage", migrate_storage)) as dsn,
        intakes(dsn, 2) as ((process, _), uris),
        Load(uris) as load,
    ):
        load.stores()
        if away == "frozen":
            with server.frozen():
                load.refuses()
        else:
            (server.stop if away == "stopped" else server.kill)()
            load.refuses()
            server.start()
        load.stores()
        load.ends()
        load.check(dsn)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=PATIENCE)
        assert "the report storage works again" in said
        assert "psycopg" not in said


def test_who_ends_it_while_the_database_hangs_sees_no_traceback() -> None:
    with (
        running() as server,
        server.database(server.template("storage", migrate_storage)) as dsn,
        intakes(dsn, 1) as ((process,), uris),
        Load(uris) as load,
    ):
        load.stores()
        with server.frozen():
            load.refuses()
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=PATIENCE)
            load.ends()
        assert "Traceback" not in said
        assert all(answer.status_code == 503 for answer in load.answers)


PAGE = ROOT / "docs" / "how-to" / "collector-pair.md"


@contextmanager
def balancer(folder: Path, nodes: Sequence[str]) -> Iterator[tuple[str, ssl.SSLContext]]:
    """HAProxy before some collectors, as the page has it; gives its address, and what a client needs to trust it."""
    binary = program("haproxy")
    if binary is None:
        pytest.skip("haproxy is not installed: apt-get install haproxy")
    site = make_site(folder / "site", "localhost")
    block = re.search(r"```haproxy\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert block
    with reserved_port() as port:
        text = block[1].replace("bind :443 ssl crt /etc/haproxy/pins.pem", f"bind 127.0.0.1:{port} ssl crt {site.both}")
        for number, url in enumerate(nodes, start=1):
            text = text.replace(f"10.0.0.2{number}:8080", url.split("/")[2])
        assert "10.0.0" not in text
        (folder / "haproxy.cfg").write_text(text)
        with (folder / "haproxy.log").open("w") as log:
            process = subprocess.Popen([binary, "-db", "-f", folder / "haproxy.cfg"], stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + PATIENCE
            while process.poll() is None and time.monotonic() < deadline:
                with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
                    break
            assert process.poll() is None, (folder / "haproxy.log").read_text()
            yield f"https://localhost:{port}", site.client()
        finally:
            end(process)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_a_node_behind_a_balancer_ends(end: signal.Signals, storage: str, tmp_path: Path) -> None:
    behind = ["--trusted-proxy", "127.0.0.1", "--public-url", "https://pins.example"]
    with (
        intakes(storage, 2, *behind) as (processes, uris),
        balancer(tmp_path, uris) as (front, trust),
        Load([f"{front}/r/demo/enforce"], 4, trust) as load,
    ):
        load.stores()
        processes[0].send_signal(end)
        processes[0].wait(PATIENCE)
        load.stores()
        load.ends()
        load.check(storage, is_balanced=True)
