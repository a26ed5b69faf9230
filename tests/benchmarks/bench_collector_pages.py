"""What a page costs over many reports: ``REPORTS=5000000 make bench ARGS=tests/benchmarks/bench_collector_pages.py``.

``/groups`` and honest reports are also measured while 10,000 hostile reports wait for their verdicts.

Ninety days of reports in 20,000 groups on 2,000 hosts, with eleven verdicts, two hundred issuers and three thousand
pins. For each filter and its negation: how long one waits for the overview with its chart, of the lists, and of the
first byte of each export. Some 22 bodies of each group are kept, with 12 kB each as of a real report; ``BODY=1000``
makes them that many bytes long, so that a million reports need 1 GB of disk and not 6 for each storage.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from psycopg import sql
from sqlalchemy import Connection, select
from starlette.requests import ClientDisconnect
from starlette.testclient import TestClient

from dynpin import Pin
from dynpin.middleware.collector import collector
from dynpin.middleware.collector.app import Collector
from dynpin.middleware.collector.intake import understood
from dynpin.middleware.collector.storage import Arrival, Filter, migrate_storage, open_storage
from dynpin.middleware.collector.storage.postgresql.waiting import raw
from dynpin.middleware.collector.storage.sql import SQLStorage, is_sampled, schema
from dynpin.middleware.collector.triage import VERDICTS
from tests.benchmarks.bench_collector_storages import SETTINGS
from tests.benchmarks.turns import against, tell
from tests.middleware.collector.conftest import NOW, report, vector
from tests.middleware.collector.test_command import collecting
from tests.middleware.collector.test_triage_bounds import certificate
from tests.postgres import Cluster, running

REPORTS = int(os.environ.get("REPORTS", "200000"))
BODY = int(os.environ.get("BODY", "0"))
GROUPS, DAYS = max(100, min(20_000, REPORTS // 50)), 90
# In the order of time, in which the batches would have written them.
ADDED_UP = """
INSERT INTO rates SELECT group_id, CAST(received_at AS BIGINT) / 3600 AS hour, count(*) FROM reports
    GROUP BY 1, 2 ORDER BY hour, group_id;
INSERT INTO totals SELECT 1, hour, mode, verdict, state, token, sum(rates.reports)
    FROM rates JOIN groups ON groups.id = group_id GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY hour;
INSERT INTO totals SELECT 24, hour / 24 * 24, mode, verdict, state, token, sum(reports)
    FROM totals GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 2;
INSERT INTO agents SELECT group_id, user_agent, count(*) FROM reports GROUP BY 1, 2
"""


def fill(storage: SQLStorage, judged_with: str, diagnosis: str) -> None:
    """Write the groups and the reports, and add them up as the collector would have."""
    chance = random.Random(7469)
    pins = [str(Pin(number.to_bytes(32, "big"))) for number in range(3_000)]
    sizes = [0.0, *(1 / number**0.8 for number in range(1, GROUPS + 1))]
    of_groups = chance.choices(range(GROUPS + 1), sizes, k=REPORTS)
    times = sorted(NOW - DAYS * 86_400 * chance.random() for _ in range(REPORTS))
    seen: dict[int, list[float]] = {}
    for group, moment in zip(of_groups, times, strict=True):
        known = seen.setdefault(group, [moment, moment, 0])
        known[1:] = moment, known[2] + 1
    rows: dict[str, list[dict[str, object]]] = {"groups": [], "diagnoses": [], "pins": []}
    for group, (first, last, number) in seen.items():
        host = f"h{chance.randrange(2_000)}.example{group % 7}.test"
        verdict = chance.choice(list(VERDICTS))
        known_pins, validated = chance.sample(pins, 2), chance.sample(pins, 3)
        mode, state = chance.choice(["enforce", "report-only"]), chance.choice(["open", "open", "muted", "resolved"])
        rows["groups"].append(
            {
                "id": group, "key": f"{group:032x}", "host": host, "noted_host": host, "port": 443, "mode": mode,
                "token": f"t{group % 5}", "source": "192.0.2.0/24", "known_pins": json.dumps(known_pins),
                "validated_pins": json.dumps(validated), "first_seen": first, "last_seen": last, "reports": int(number),
                "issuer": f"Issuing CA {chance.randrange(200)}", "verdict": verdict,
                "severity": VERDICTS[verdict].severity, "state": state, "judged_with": judged_with, "alerted_at": 0.0,
            }
        )  # fmt: skip
        rows["diagnoses"].append({"group_id": group, "diagnosis": diagnosis})
        places = {(pin, "known") for pin in known_pins} | {(pin, "validated") for pin in validated}
        rows["pins"] += [{"pin": pin, "group_id": group, "place": place} for pin, place in places]
    real = vector("real-chrome-yubico")["body"]
    body = json.dumps({"hostname": "x" * (BODY - 16)} if BODY else real)
    counts: Counter[int] = Counter()
    with storage.engine.writing(3600) as db:
        if db.dialect.name == "postgresql":
            db.exec_driver_sql("SET LOCAL statement_timeout = 0")
        for name, some in rows.items():
            db.execute(schema.metadata.tables[name].insert(), some)
        for start in range(0, REPORTS, 10_000):
            reports, samples = list[dict[str, object]](), list[dict[str, object]]()
            for number in range(start, min(REPORTS, start + 10_000)):
                group, moment = of_groups[number], times[number]
                reports.append(
                    {
                        "id": number + 1, "group_id": group, "received_at": moment, "observed_at": moment,
                        "expires_at": moment, "token": "t0", "source": "192.0.2.0/24",
                        "user_agent": f"agent/{number % 15}", "flags": "",
                    }
                )  # fmt: skip
                counts[group] += 1
                if is_sampled(counts[group]):
                    samples.append({"report_id": number + 1, "group_id": group, "body": body})
            for table, some in ((schema.reports, reports), (schema.samples, samples)):
                if db.dialect.name == "postgresql":
                    copied(db, table.name, some)
                else:
                    db.execute(table.insert(), some)
        for statement in ADDED_UP.split(";\n"):
            db.exec_driver_sql(statement)


def copied(db: Connection, table: str, rows: list[dict[str, object]]) -> None:
    """Write rows by COPY, which is a tenth of the time."""
    names = sql.SQL(", ").join(map(sql.Identifier, rows[0]))
    with (
        raw(db).cursor() as cursor,
        cursor.copy(sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table), names)) as copy,
    ):
        for row in rows:
            copy.write_row(list(row.values()))


def a_diagnosis(folder: Path) -> tuple[str, str]:
    """What triage says of a real report, and what it was judged with."""
    app = collector(folder / "one.sqlite", tokens=["t0"], open_access=True, clock=lambda: NOW)
    TestClient(app).post("/r/t0/enforce", json=vector("real-chrome-yubico")["body"])
    app.service.worker.work()
    storage = app.service.storage
    (group,) = storage.groups(Filter()).entries
    assert isinstance(storage, SQLStorage)
    with storage.reading() as unit:
        judged_with = str(unit.db.scalar(select(schema.groups.c.judged_with)))
    app.close()
    assert group.diagnosis is not None
    return judged_with, group.diagnosis


def milliseconds_to_the_first_byte(app: Collector, path: str, query: str, clock: Callable[[], float]) -> float:
    """How long until something of a body is sent; the sender then hangs up."""
    begun = clock()
    taken: list[float] = []

    async def receive() -> dict[str, object]:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: MutableMapping[str, Any]) -> None:
        if message.get("body") and not taken:
            taken.append(clock() - begun)
            raise OSError("enough")

    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"spec_version": "2.4"},
        "method": "GET",
        "path": path,
        "headers": [],
    }
    scope |= {"query_string": query.encode(), "scheme": "http", "server": ("a.test", 80), "client": ("192.0.2.1", 1)}
    # Starlette tells about the second where an exception handler was found for the first.
    with pytest.raises((ClientDisconnect, RuntimeError)):
        asyncio.run(app(scope, receive, send))
    return taken[0] * 1000


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A server with PostgreSQL's own settings. Its autovacuum would count for a page, so the bench vacuums instead."""
    with running(**SETTINGS | {"autovacuum": "off"}) as made:
        yield made


@pytest.fixture
def database(cluster: Cluster) -> Iterator[str]:
    """A database of PostgreSQL with the collector's tables."""
    with cluster.database(cluster.template("collector", migrate_storage)) as address:
        yield address


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_pages_over_many_reports(
    engine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    """In processor time of this process and of the database's, which is what one waits on a machine that is idle."""
    judged_with, diagnosis = a_diagnosis(tmp_path)
    address: str | Path = tmp_path / "r.sqlite"
    cluster: Cluster | None = None

    def clock() -> float:
        return time.process_time() + (0 if cluster is None else cluster.processor_time())

    if engine == "postgresql":
        address, cluster = request.getfixturevalue("database"), request.getfixturevalue("cluster")
    storage = open_storage(address, clock=lambda: NOW)
    fill(storage, judged_with, diagnosis)
    if engine == "postgresql":
        with psycopg.connect(str(address), autocommit=True) as db:
            db.execute("VACUUM ANALYZE")
    app = collector(storage, tokens=["t0"], open_access=True, clock=lambda: NOW)
    # Now, and not beside a page: on PostgreSQL retention reads all rows, to measure them.
    app.service.worker.work()
    client = TestClient(app)
    largest = storage.groups(Filter(), limit=1).entries[0]
    filters: list[tuple[str, str]] = [
        ("host", largest.host), ("host", "*.example3.test"), ("noted_host", largest.noted_host), ("mode", "enforce"),
        ("verdict", "unknown-ca"), ("state", "open"), ("pin", largest.known_pins[0]), ("issuer", "Issuing CA 7"),
        ("token", "t1"), ("group", largest.key),
    ]  # fmt: skip
    wanted = ["", "since=24h", "since=30d", "since=90d", "until=2026-12-01"]
    wanted += [urlencode([(name + sign, value)], safe="!*") for name, value in filters for sign in ("", "!")]

    def milliseconds(path: str) -> float:
        begun = clock()
        assert client.get(path).status_code == 200
        return (clock() - begun) * 1000

    exports = [f"/export/{what}.{form}" for what in ("reports", "groups") for form in ("csv", "json", "ndjson")]
    slowest: dict[str, tuple[float, str]] = {}
    for query in wanted:
        costs = {path: min(milliseconds(f"{path}?{query}") for _ in range(2)) for path in ("/", "/groups", "/reports")}
        costs |= {path: milliseconds_to_the_first_byte(app, path, query, clock) for path in exports}
        for path, cost in costs.items():
            slowest[path] = max(slowest.get(path, (0.0, "")), (cost, query))
        with capsys.disabled():
            print(f"\n  {query or 'no filter':60} " + " ".join(f"{cost:5.0f}" for cost in costs.values()), end="")
    slowest["/groups/{key}"] = min(milliseconds(f"/groups/{largest.key}") for _ in range(2)), ""
    with capsys.disabled():
        print(f"\n{REPORTS:,} reports in {GROUPS:,} groups, {engine}; slowest, in ms of a processor:")
        for path, (cost, query) in slowest.items():
            print(f"  {path:22} {cost:6.0f}   {query}")
    app.close()


HOSTILE = int(os.environ.get("HOSTILE", "10000"))
TURNS = 30
LOAD = int(os.environ.get("LOAD", "100000"))


def hostile_bodies() -> list[str]:
    """The worst that fits the caps: certificates of one name on slow curves, each may have signed any other."""
    keys = [ec.generate_private_key(ec.SECP521R1()) for _ in range(10)]
    signers = [ec.generate_private_key(ec.SECP521R1()) for _ in range(8)]
    pems = [[certificate(key, signer, number) for number, key in enumerate(keys * 2, start=1)] for signer in signers]
    chains = [(served, validated[::-1]) for served in pems for validated in pems]
    return [
        json.dumps(report(served_certificate_chain=served, validated_certificate_chain=validated))
        for served, validated in chains
    ]


def fill_with_hostile(file: Path, bodies: list[str]) -> None:
    """Hand them to the storage, as a thousand sources would within the limits."""
    storage = open_storage(file)
    for start in range(0, HOSTILE, 500):
        arrivals: list[Arrival] = []
        for number in range(start, min(start + 500, HOSTILE)):
            entry = json.loads(bodies[number % len(bodies)]) | {"hostname": f"h{number}.test", "noted-hostname": None}
            told, text = understood(entry, "enforce"), json.dumps(entry)
            arrivals.append(Arrival(told.cause, told.flags, None, None, "t0", "192.0.2.0/24", "", time.time(), text))
        storage.add(arrivals, {})
    storage.close()


def waits(client: httpx.Client, method: str, path: str, times: int, content: bytes | None = None) -> list[float]:
    """Milliseconds that a person or a sender waits, one request after the other."""
    found: list[float] = []
    for _ in range(times):
        begun = time.perf_counter()
        client.request(method, path, content=content, headers={"content-type": "application/json"}).raise_for_status()
        found.append((time.perf_counter() - begun) * 1000)
    return found


def test_pages_and_reports_while_hostile_reports_wait(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two processes in turns of a second each: while one answers, the other stands still, with whom it has judge."""
    honest = json.dumps(vector("real-chrome-yubico")["body"]).encode()
    fill_with_hostile(tmp_path / "with.sqlite", hostile_bodies())
    options = ("--token", "t0", "--open-access", "--limit-source", "1000000", "--limit-token", "1000000")
    pages: dict[str, list[float]] = {"without": [], "with": []}
    medians: dict[str, list[float]] = {"without": [], "with": []}
    with ExitStack() as stack:
        served: dict[str, tuple[subprocess.Popen[str], httpx.Client]] = {}
        for name in pages:
            process, said = stack.enter_context(collecting(tmp_path / f"{name}.sqlite", *options))
            client = httpx.Client(base_url=said["pages"], trust_env=False, timeout=120)
            served[name] = process, stack.enter_context(client)
            client.get("/groups").raise_for_status()
            signal_all(process, signal.SIGSTOP)
        for _ in range(TURNS):
            for name, (process, client) in served.items():
                signal_all(process, signal.SIGCONT)
                client.get("/healthz").raise_for_status()
                pages[name] += waits(client, "GET", "/groups", 20)
                medians[name].append(statistics.median(waits(client, "POST", "/r/t0/enforce", 60, honest)))
                signal_all(process, signal.SIGSTOP)
        for process, _ in served.values():
            signal_all(process, signal.SIGCONT)
        storage = open_storage(tmp_path / "with.sqlite")
        left = sum(groups for verdict, groups, _ in storage.tally(Filter(), "verdict", 50) if not verdict)
        storage.close()
    p99 = {name: statistics.quantiles(times, n=100)[98] for name, times in pages.items()}
    ratio = statistics.median(mine / others for mine, others in zip(medians["with"], medians["without"], strict=True))
    with capsys.disabled():
        for name, found in pages.items():
            groups_ms = {"groups_p50_ms": f"{statistics.median(found):.1f}", "groups_p99_ms": f"{p99[name]:.1f}"}
            tell(f"hostile reports: {name}", **groups_ms, report_p50_ms=f"{statistics.median(medians[name]):.2f}")
        aims = {"aim_p99_ms": against(200, p99["with"]), "aim_ratio": against(1.2, ratio)}
        tell("hostile reports: in all", **aims, report_ratio=f"{ratio:.2f}", still_waiting=left)


def signal_all(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """Signal a collector, and the process that judges for it."""
    children = Path(f"/proc/{process.pid}/task")
    pids = [pid for task in children.glob("*/children") for pid in task.read_text().split()]
    for pid in (process.pid, *map(int, pids)):
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def resident_megabytes(process: subprocess.Popen[str]) -> float:
    (line,) = [line for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if "VmRSS" in line]
    return int(line.split()[1]) / 1024


def test_memory_over_a_long_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a process holds after a tenth of the load, which fills all that is remembered, and after all of it."""
    options = ("--token", "t0", "--open-access", *(word for name in ("source", "token", "all")
               for word in (f"--limit-{name}", "100000000")))  # fmt: skip
    honest = json.dumps(vector("real-chrome-yubico")["body"])
    with collecting(tmp_path / "r.sqlite", *options) as (process, said):
        port = httpx.URL(said["pages"]).port
        assert port is not None
        sizes: list[float] = []
        for part in range(10):
            # Each fifth is of a host of its own: causes, agents and texts go on growing as in the field.
            bodies = [
                honest.replace("demo.yubico.com", f"h{part}-{n}.test" if n % 5 == 0 else "demo.yubico.com")
                for n in range(LOAD // 10)
            ]
            asyncio.run(send_all(port, bodies))
            httpx.get(said["pages"], trust_env=False, timeout=120).raise_for_status()
            sizes.append(resident_megabytes(process))
    with capsys.disabled():
        shown = " ".join(f"{size:.0f}" for size in sizes)
        tell("memory", reports=LOAD, groups=LOAD // 5, mb_after_each_tenth=shown, growth=f"{sizes[-1] / sizes[0]:.2f}")


async def send_all(port: int, bodies: list[str]) -> None:
    """Send reports by 32 connections, one after the other each."""
    waiting = iter(bodies)

    async def send_some() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for body in waiting:
            head = "POST /r/t0/enforce HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: "
            writer.write(f"{head}{len(body)}\r\n\r\n{body}".encode())
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")
        writer.close()

    await asyncio.gather(*(send_some() for _ in range(32)))
