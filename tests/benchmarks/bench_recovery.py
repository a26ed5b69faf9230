"""What recovery costs: a handshake, the header, a list of 10,000 hosts, and bytes for each client and day.

``make bench ARGS=tests/benchmarks/bench_recovery.py``. docs/explanation/performance.md has the tables.
"""

from __future__ import annotations

import json
import random
import ssl
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from http.server import SimpleHTTPRequestHandler
from io import BufferedIOBase
from pathlib import Path
from typing import Any, Self

import pytest
import trustme

from dynpin import Pin, PublicKeyPins
from dynpin.clientstore import PinStore, enforce
from dynpin.clientstore.recovery import HTTPFetcher, verify
from dynpin.lab.loopback import LoopbackServer
from dynpin.pin_list import PIN_LIST
from dynpin.recovery import Recovery

from ..clientstore.world import leaf_pin
from ..recovery.operator import Operator
from .bench_tls import handshake, server_of
from .turns import against, tell

HOSTS = (10, 1_000, 10_000)
HOUR = 3_600.0
ROUNDS, HANDSHAKES = 7, 1_500


@pytest.mark.parametrize("pinned_key", ["issuer", "leaf"])
def test_a_handshake_of_a_host_that_has_noted_a_root(tmp_path: Path, pinned_key: str) -> None:
    """As in bench_tls, with all hosts pinned: two clients that have noted a root, and two that have not.

    The two of a kind differ by noise alone. All four take turns in random order, one handshake at a time.
    """
    authority = trustme.CA()
    issuer = authority.create_child_ca()
    leaf = issuer.issue_cert("bank.test")
    server, key = server_of(leaf), leaf_pin(leaf)
    pins = (Pin.from_certificate(issuer.cert_pem.bytes()) if pinned_key == "issuer" else key, Pin(bytes(32)))
    root = Recovery(bytes(32), "https://recovery.test")
    with ExitStack() as stores:
        contexts: list[ssl.SSLContext] = []
        for number, recovery in enumerate((None, None, root, root)):
            store = stores.enter_context(PinStore(tmp_path / str(number)))
            contexts.append(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
            authority.configure_trust(contexts[-1])
            enforce(contexts[-1], store)
            store.note("bank.test", str(PublicKeyPins(pins, 1_000_000, recovery=recovery)), pins[:1])
        took: list[list[int]] = [[] for _ in contexts]
        order = list(range(len(contexts)))
        for _ in range(HANDSHAKES):
            random.shuffle(order)
            for side in order:
                begun = time.thread_time_ns()
                handshake(contexts[side], server, "bank.test")
                took[side].append(time.thread_time_ns() - begun)
    for what, share in (("median", 50), ("the tenth that took least", 10)):
        each = [statistics.quantiles(times, n=100)[share - 1] for times in took]
        tell(
            f"key of {pinned_key} pinned, {what}",
            without_us=f"{each[0] / 1000:.0f}",
            with_root=f"{(each[2] + each[3]) / (each[0] + each[1]):.3f}",
            two_without=f"{each[1] / each[0]:.3f}",
            two_with=f"{each[3] / each[2]:.3f}",
        )


def test_bytes_that_a_header_gains() -> None:
    pins = tuple(Pin(bytes([number]) * 32) for number in range(2))
    plain = PublicKeyPins(pins, 2_592_000, include_subdomains=True)
    for uri in ("https://pins.test", "https://recovery.www.example.com/published"):
        named = PublicKeyPins(pins, 2_592_000, include_subdomains=True, recovery=Recovery(bytes(32), uri))
        gained = len(str(named)) - len(str(plain))
        tell(f"header, {uri}", bytes=gained, before=len(str(plain)), aim=against(200, gained))


# -- a list of 10,000 hosts --------------------------------------------------------------------------------------------

LOOK = """
import json, sys, time
begun = time.perf_counter()
from dynpin.clientstore.recovery import HTTPFetcher, verify
from dynpin.recovery import Recovery
imported = time.perf_counter() - begun
# The most that this process has had; ru_maxrss would begin with what its parent had when it was forked.
memory = lambda: next(int(line.split()[1]) for line in open("/proc/self/status") if line[:6] == "VmHWM:") / 1024
before = memory()
begun, worked = time.perf_counter(), time.process_time()
seen = verify(Recovery(bytes.fromhex(sys.argv[1]), sys.argv[2]), {}, HTTPFetcher(60.0), time.time())
assert seen.problem is None and len(seen.pins.hosts) == int(sys.argv[3]), seen.problem
print(json.dumps({"clock": time.perf_counter() - begun, "processor": time.process_time() - worked,
                  "imports": imported, "imported": before, "above": memory() - before}))
"""


def test_a_list_is_fetched_and_verified(tmp_path: Path) -> None:
    for hosts in HOSTS:
        folder = tmp_path / str(hosts)
        folder.mkdir()
        operator = Operator(folder)
        operator.sign(listed(hosts))
        with Published(operator.www) as site:
            root = operator.repository.recovery(site.uri).root.hex()
            command = [sys.executable, "-c", LOOK, root, site.uri, str(hosts)]
            told = [
                json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
                for _ in range(ROUNDS)
            ]
        middle = {name: statistics.median(each[name] for each in told) for name in told[0]}
        tell(
            f"first look, {hosts:,} hosts",
            clock=f"{middle['clock']:.3f} s (to {max(each['clock'] for each in told):.3f})",
            processor=f"{middle['processor']:.3f} s",
            imports=f"{middle['imports']:.2f} s, {middle['imported']:.0f} MB",
            above=f"{middle['above']:.1f} MB",
            aims=f"{against(1.0, middle['clock'])}, {against(50, middle['above'])}",
        )


def listed(hosts: int, key: int = 0) -> dict[str, tuple[Pin, ...]]:
    """So many hosts, each with two pins of its own."""
    numbers = ((key * 2 + number).to_bytes(32, "big") for number in range(2 * hosts))
    return {f"host{number}.example.test": (Pin(next(numbers)), Pin(next(numbers))) for number in range(hosts)}


# -- bytes for each client and day -------------------------------------------------------------------------------------


def test_bytes_for_each_client_and_day(tmp_path: Path) -> None:
    """A client that follows the list: HTTP alone, both ways, by a server that answers as Python's does."""
    for hosts in HOSTS:
        folder = tmp_path / str(hosts)
        folder.mkdir()
        operator = Operator(folder)
        operator.sign(listed(hosts))
        with Published(operator.www) as site:
            recovery = operator.repository.recovery(site.uri)
            trusted: dict[str, bytes] = {}
            for day, change in (
                ("first look", None),
                ("nothing new", None),
                ("timestamp refreshed", "refresh"),
                ("a new list", "sign"),
            ):
                if change == "refresh":
                    operator.publish(now=time.time() + HOUR)
                elif change == "sign":
                    operator.sign(listed(hosts, key=1), now=time.time() + HOUR)
                site.counted = site.connections = 0
                seen = verify(recovery, trusted, HTTPFetcher(60.0), time.time())
                assert seen.problem is None
                trusted = dict(seen.files)
                tell(f"{hosts:,} hosts, {day}", bytes=f"{site.counted:,}", connections=site.connections)
        tell(f"{hosts:,} hosts, the list itself", bytes=f"{len(trusted[PIN_LIST]):,}")


class Published:
    """The published files over HTTP, and how many bytes went either way."""

    def __init__(self, folder: Path) -> None:
        self.counted = self.connections = 0
        outer = self

        class Handler(SimpleHTTPRequestHandler):
            def setup(self) -> None:
                super().setup()
                outer.connections += 1
                self.rfile = _Counted(self.rfile, outer)  # type: ignore[assignment]
                self.wfile = _Counted(self.wfile, outer)  # type: ignore[assignment]

            def __init__(self, *args: Any) -> None:
                super().__init__(*args, directory=str(folder))

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's own
                """Say nothing."""

        self._server = LoopbackServer(Handler)

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._server.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.__exit__(*exc_info)


class _Counted:
    """A file of a connection whose bytes are counted."""

    def __init__(self, file: BufferedIOBase, outer: Published) -> None:
        self._file, self._outer = file, outer

    def write(self, data: bytes) -> int:
        self._outer.counted += len(data)
        return self._file.write(data)

    def readline(self, *args: int) -> bytes:
        line = self._file.readline(*args)
        self._outer.counted += len(line)
        return line

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
