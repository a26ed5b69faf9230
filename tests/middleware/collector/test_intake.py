"""The intake: every request gets the answer that docs/reference/collector.md promises, and never a 500."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dynpin.middleware.collector import Limits, ServiceSettings, Token, collector, open_storage
from dynpin.middleware.collector.intake import Answer, Meter, truncated
from dynpin.middleware.collector.service import Service
from dynpin.middleware.collector.storage import Arrival, Counted, Filter
from dynpin.middleware.collector.storage.sql import SQLStorage
from dynpin.middleware.collector.storage.sqlite import SQLiteEngine
from tests.middleware.collector.conftest import VECTORS, Clock, Site, Start, report, running_site, vector

# id: status, error or declined code, flags that the stored report carries (a subset)
ANSWERS: dict[str, tuple[int, str, set[str]]] = {
    "real-chrome-ciscodude": (204, "", set()),
    "real-chrome-yubico": (204, "", set()),
    "rfc-example-truncated-pem": (204, "", {"no-noted-hostname"}),
    "rfc-example-as-printed": (400, "not-json", set()),
    "relay-type-detect-csp": (200, "other-report-type", set()),
    "lookout-legacy-1": (204, "", {"no-noted-hostname"}),
    "lookout-reporting-api-batch": (200, "other-report-type", {"no-known-pins"}),
    "tam7t-bare-pins": (204, "", {"bare-known-pins"}),
    "mach-zero-max-age": (204, "", {"bad-expiration"}),
    "m-missing-hostname": (400, "no-hostname", set()),
    "m-missing-date-time": (204, "", {"no-date-time"}),
    "m-unknown-key": (204, "", {"unknown-members"}),
    "m-port-string": (204, "", {"port-as-text"}),
    "m-port-out-of-range": (204, "", {"bad-port"}),
    "m-bad-date": (204, "", {"bad-date-time"}),
    "m-pin-short": (204, "", {"bad-known-pin"}),
    "m-deep-json": (204, "", {"unknown-members"}),
    "m-sql-injection-hostname": (204, "", {"bad-hostname"}),
    "h-not-json": (400, "not-json", set()),
    "h-empty-body": (400, "empty", set()),
    "h-get": (405, "method", set()),
    "h-options-preflight": (204, "", set()),
    "h-bigbank-crash": (204, "", set()),
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A collector that many tests write to."""
    with running_site(file=tmp_path_factory.mktemp("running") / "reports.sqlite") as running:
        yield running


@pytest.mark.parametrize("sent", VECTORS, ids=lambda v: v["id"])
def test_every_request_of_the_vectors(running: Site, sent: dict[str, Any]) -> None:
    before = len(running.reports("limit=500"))
    status, code, flags = ANSWERS[sent["id"]]
    body = sent["body"] if isinstance(sent["body"], str) else json.dumps(sent["body"])
    answer = running.client.request(
        sent["method"], "/r/demo/enforce", content=body, headers={"content-type": sent["content_type"]}
    )
    assert answer.status_code == status
    if code:
        told = answer.json()
        assert code in ([told["error"]] if "error" in told else [one["error"] for one in told["declined"]])
    stored = running.reports("limit=500")
    taken = sent["method"] == "POST" and (status == 204 or sent["id"] == "lookout-reporting-api-batch")
    assert len(stored) == before + taken
    if taken:
        assert flags <= set(stored[0]["flags"])


def test_every_vector_is_in_the_table() -> None:
    assert {entry["id"] for entry in VECTORS} == ANSWERS.keys()


def test_a_report_is_listed_as_it_came(site: Start) -> None:
    running = site()
    sent = report(x="kept")
    assert running.post(sent, "/r/demo/report-only", **{"user-agent": "kiosk/1"}).status_code == 204
    (stored,) = running.reports()
    assert stored["report"] == sent
    assert (stored["mode"], stored["user_agent"], stored["source"]) == ("report-only", "kiosk/1", "127.0.0.0/24")
    assert stored["received_at"] == "2027-01-15T08:00:00Z"


def test_reports_of_one_cause_are_one_group(site: Start) -> None:
    running = site()
    first, second = vector("real-chrome-yubico")["body"], dict(vector("real-chrome-yubico")["body"])
    second["date-time"], second["known-pins"] = "2016-09-07T00:00:00Z", list(reversed(first["known-pins"]))
    for body in (first, second):
        running.post(body)
    running.post(first, "/r/demo/report-only")
    groups = running.groups()
    assert sorted((group["reports"], group["mode"]) for group in groups) == [(1, "report-only"), (2, "enforce")]


# -- what is refused, and told ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 204),
        ("application/json; charset=utf-8", 204),
        ("Application/JSON", 204),
        ("application/reports+json", 204),
        ("application/hpkp-report", 204),
        ("text/json", 204),
        ("text/plain;charset=UTF-8", 204),
        ("application/octet-stream", 204),
        ("", 204),
        ("application/x-www-form-urlencoded", 415),
        ("multipart/form-data; boundary=x", 415),
        ("text/html", 415),
        ("image/png", 415),
        ("🙂", 415),
    ],
)
def test_media_types(running: Site, content_type: str, status: int) -> None:
    answer = running.client.post(
        "/r/demo/enforce", content=json.dumps(report()), headers={b"content-type": content_type.encode()}
    )
    assert answer.status_code == status
    assert answer.headers["access-control-allow-origin"] == "*"


BODIES: dict[str, tuple[bytes, int, str]] = {
    "a list": (b"[1, 2]", 200, "not-an-object"),
    "an empty list": (b"[]", 400, "empty"),
    "a number": (b"1", 400, "not-an-object"),
    "null": (b"null", 400, "not-an-object"),
    "a number of a thousand digits": (b'{"hostname": ' + b"9" * 5000 + b"}", 400, "not-json"),
    "nested ten thousand deep": (b"[" * 10_000, 400, "too-deep"),
    "nested a hundred deep": (b'{"hostname":"a.test","x":' + b"[" * 100 + b"]" * 100 + b"}", 400, "too-deep"),
    "bytes that are no text": (b"\xff\xfe\x00\xd8", 400, "not-json"),
    "half a surrogate pair": (b'{"hostname": "\\ud800", "known-pins": ["x"]}', 400, "not-json"),
    "not a number": (b'{"hostname": "a.test", "port": NaN, "known-pins": ["x"]}', 400, "not-json"),
    "an Expect-CT report": (b'{"expect-ct-report": {"hostname": "a.test"}}', 200, "other-report-type"),
    "a report of nothing": (b'{"hostname": "a.test"}', 400, "nothing-to-compare"),
    "an envelope with a string": (b'{"type": "hpkp", "body": "x"}', 400, "not-an-object"),
}


@pytest.mark.parametrize("case", BODIES)
def test_bodies_that_are_no_report(running: Site, case: str) -> None:
    body, status, code = BODIES[case]
    answer = running.post(body)
    assert answer.status_code == status
    assert code in answer.text


STORED: dict[str, bytes] = {
    "with a byte order mark": b"\xef\xbb\xbf" + json.dumps(report()).encode(),
    "in UTF-16": json.dumps(report()).encode("utf-16"),
    "with a NUL in the name": json.dumps(report(hostname="a\x00b")).encode(),
    "with a name of 60 kB": json.dumps(report(hostname="a" * 60_000)).encode(),
    "with ten thousand keys": json.dumps(report() | {f"key-{n}": n for n in range(10_000)}).encode(),
    "in an envelope": json.dumps({"type": "hpkp", "age": 1, "url": "https://a.test", "body": report()}).encode(),
    "with a year before Christ": json.dumps(report(date_time="-0044-03-15T12:00:00Z")).encode(),
    "with the last second there is": json.dumps(report(date_time="9999-12-31T23:59:59Z")).encode(),
    "with 25 certificates": json.dumps(report(served_certificate_chain=["<PEM>"] * 25)).encode(),
    "with a hundred pins": json.dumps(report(known_pins=["x"] * 100)).encode(),
}


@pytest.mark.parametrize("case", STORED)
def test_odd_reports_are_stored_and_shown(site: Start, case: str) -> None:
    running = site()  # of its own: of many reports of one cause not every body is kept
    assert running.post(STORED[case]).status_code == 204
    newest = running.reports("limit=1")[0]
    assert newest["report"]
    assert running.client.get(f"/groups/{newest['group']}").status_code == 200


def test_ten_megabytes_are_refused_before_they_are_sent(running: Site) -> None:
    assert running.post(b"[" * 10_000_000).status_code == 413


def test_a_body_without_a_length_is_cut(running: Site) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 10_000

    answer = running.client.post("/r/demo/enforce", content=parts(), headers={"content-type": "application/json"})
    assert answer.status_code == 413


def test_a_compressed_body_is_refused(running: Site) -> None:
    assert running.post(report(), **{"content-encoding": "gzip"}).json()["error"] == "content-encoding"


@pytest.mark.parametrize("path", ["/r/other/enforce", "/r/demo/other", "/r/demo", "/r/", "/r/a/b/c", "/r/%00/enforce"])
def test_unknown_addresses(running: Site, path: str) -> None:
    answer = running.post(report(), path)
    assert (answer.status_code, answer.json()["error"]) == (404, "unknown-token")


def test_an_envelope_of_several(running: Site) -> None:
    before = len(running.reports("host=batch.test"))
    wrapped = [{"type": "hpkp", "body": report(hostname="batch.test", noted_hostname="batch.test")}] * 3
    answer = running.post([*wrapped, {"type": "csp", "body": {}}, 7], **{"content-type": "application/reports+json"})
    assert answer.status_code == 200
    assert answer.json() == {
        "accepted": 3,
        "declined": [{"report": 3, "error": "other-report-type"}, {"report": 4, "error": "not-an-object"}],
    }
    assert len(running.reports("host=batch.test")) == before + 3


# -- tokens -----------------------------------------------------------------------------------------------------------


def test_a_token_bound_to_hosts(site: Start) -> None:
    running = site(tokens=[Token("shop", hosts=("a.test",))])
    for host, status in (("a.test", 204), ("b.a.test", 204), ("ba.test", 200), ("test", 200)):
        sent = report(hostname=host, noted_hostname=host)
        assert running.post(sent, "/r/shop/enforce").status_code == status
    assert {entry["host"] for entry in running.reports()} == {"a.test", "b.a.test"}
    assert running.client.get("/metrics").text.count('outcome="filtered",reason="other-host"} 2') == 1


def test_a_stored_token_works_until_it_is_revoked(site: Start) -> None:
    running = site(tokens=[])
    storage = open_storage(running.file)
    storage.add_token(Token("fresh"))
    running.clock.forward(2)
    assert running.post(report(), "/r/fresh/enforce").status_code == 204
    assert storage.revoke_token("fresh")
    assert not storage.revoke_token("fresh")
    running.clock.forward(2)
    assert running.post(report(), "/r/fresh/enforce").status_code == 404
    storage.close()


# -- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(per_token=3), "limit-token"),
        (Limits(per_source=3), "limit-source"),
        (Limits(in_all=3), "limit-in-all"),
    ],
)
def test_limits_count_what_they_drop(site: Start, limits: Limits, reason: str) -> None:
    running = site(limits=limits)
    statuses = [running.post(report()).status_code for _ in range(5)]
    assert statuses == [204, 204, 204, 429, 429]
    dropped = running.post(report())
    assert dropped.headers["retry-after"] == "3600"
    assert f'outcome="rejected",reason="{reason}"}} 3' in running.client.get("/metrics").text
    running.clock.forward(3600)
    assert running.post(report()).status_code == 204


def test_an_envelope_is_charged_by_the_report(site: Start) -> None:
    running = site(limits=Limits(per_token=3))
    answer = running.post([{"type": "hpkp", "body": report()}] * 5)
    assert answer.json()["accepted"] == 3
    assert {one["error"] for one in answer.json()["declined"]} == {"limit-token"}


def test_a_dropped_report_is_judged_by_its_path_and_its_source_alone(tmp_path: Path) -> None:
    """What it costs, counted as work: no header, no byte of the body, no JSON and no database."""
    asked: list[str] = []

    class Watched(SQLStorage):
        def tokens(self) -> list[Token]:
            asked.append("tokens")
            return super().tokens()

        def add(self, arrivals: Sequence[Arrival], outcomes: Mapping[Counted, int]) -> bool:
            asked.append(f"add {len(arrivals)}")
            return super().add(arrivals, outcomes)

    class Headers(list[tuple[bytes, bytes]]):
        def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
            asked.append("header")
            return super().__iter__()

    body = json.dumps(report()).encode()
    storage = Watched(SQLiteEngine(tmp_path / "r.sqlite"), Clock())
    app = collector(storage, tokens=["demo"], limits=Limits(per_source=1), clock=Clock())
    headers = Headers([(b"content-type", b"application/json")])
    scope = {"type": "http", "method": "POST", "path": "/r/demo/enforce", "client": ("192.0.2.7", 1)}

    async def post() -> list[dict[str, Any]]:
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            asked.append("body")
            return {"type": "http.request", "body": body}

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(dict(message))

        await app({**scope, "headers": headers}, receive, send)
        return sent

    async def flood() -> list[list[dict[str, Any]]]:
        accepted = await post()
        assert asked.count("tokens") == asked.count("body") == asked.count("add 1") == 1
        assert "header" in asked
        asked.clear()
        return [accepted, *[await post() for _ in range(100)]]

    statuses = [start["status"] for start, _ in asyncio.run(flood())]
    assert statuses == [204] + [429] * 100
    assert asked == []
    app.close()
    assert asked == ["add 0"], "how many were dropped is written at the end"


def test_sources_beyond_the_table_share_one_budget() -> None:
    meter = Meter(Limits(per_source=1, per_token=10**9, in_all=10**9))
    answers = [meter.exceeded("t", f"source-{n}", 0.0) for n in range(50_010)]
    assert answers.count("limit-source") == 9


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.77", "192.0.2.0/24"),
        ("2001:db8:1:2::3", "2001:db8:1::/48"),
        ("::ffff:192.0.2.77", "192.0.2.0/24"),
        ("fe80::1%eth0", "fe80::/48"),
        ("no address", ""),
        ("", ""),
        (None, ""),
    ],
)
def test_addresses_are_truncated(address: str | None, network: str) -> None:
    assert truncated(address) == network


def test_whole_addresses_where_asked_for(site: Start) -> None:
    running = site(source_address="whole")
    running.post(report())
    assert running.reports()[0]["source"] == "127.0.0.1"


# -- what no sender can do --------------------------------------------------------------------------------------------


def answer_of(service: Service, body: bytes) -> int:
    admission = service.intake.admit("POST", "/r/demo/enforce", "192.0.2.1")
    if isinstance(admission, Answer):
        return admission.status
    taken = service.intake.take(admission, body)
    if taken.stored is not None:
        taken.stored.result()
    return taken.answer.status


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    limits = Limits(per_source=10**9, per_token=10**9, in_all=10**9)
    service = Service(
        open_storage(tmp_path_factory.mktemp("service") / "r.sqlite"), ServiceSettings(tokens=["demo"], limits=limits)
    )
    yield service
    service.close()


TEXTS = st.text(max_size=40)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4))
REPORTS = st.fixed_dictionaries({}, optional=dict.fromkeys(report(), VALUES))


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(REPORTS | VALUES)
def test_no_json_leads_to_an_error(service: Service, value: object) -> None:
    assert answer_of(service, json.dumps(value).encode("utf-8", "surrogatepass")) in (200, 204, 400)
    service.worker.work()
    assert service.storage.untriaged(1) == []


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_lead_to_an_error(service: Service, body: bytes) -> None:
    assert answer_of(service, body) in (200, 204, 400)


def test_what_could_not_be_stored_was_not_accepted(site: Start) -> None:
    running = site()
    assert running.post(report()).status_code == 204
    with sqlite3.connect(running.file, isolation_level=None) as breaker:
        breaker.execute("ALTER TABLE samples RENAME TO elsewhere")
        assert [running.post(report()).status_code for _ in range(3)] == [503] * 3
        breaker.execute("ALTER TABLE elsewhere RENAME TO samples")
    breaker.close()
    assert running.post(report()).status_code == 204
    counted = running.client.get("/metrics").text
    assert 'reports_total{outcome="accepted",reason=""} 2\n' in counted
    assert 'reports_total{outcome="rejected",reason="not-stored"} 3\n' in counted


def test_a_storage_that_fails_is_told_and_mends(site: Start) -> None:
    running = site()
    assert running.post(report()).status_code == 204
    breaker = sqlite3.connect(running.file, isolation_level=None)
    for table in ("samples", "tokens"):
        breaker.execute(f"ALTER TABLE {table} RENAME TO elsewhere")
        running.clock.forward(2)
        failed = running.post(report())
        assert (failed.status_code, failed.json()["error"]) == (503, "not-stored")
        breaker.execute(f"ALTER TABLE elsewhere RENAME TO {table}")
    breaker.close()
    running.clock.forward(2)
    assert running.post(report()).status_code == 204
    assert len(running.reports()) == 2, "what was not acknowledged left nothing behind"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_service_that_is_built_before_a_fork_works_in_both(tmp_path: Path) -> None:
    service = Service(open_storage(tmp_path / "r.sqlite"), ServiceSettings(tokens=["demo"]))
    child = os.fork()
    if child == 0:
        status = answer_of(service, json.dumps(report()).encode())
        os._exit(0 if status == 204 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert answer_of(service, json.dumps(report()).encode()) == 204
    assert service.storage.groups(Filter()).entries[0].reports == 2
    service.close()
