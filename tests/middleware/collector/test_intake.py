"""The intake: every request gets the answer that docs/reference/collector.md promises, and never a 500."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dynpin.middleware.collector import Limits, ServiceSettings, Token, open_storage
from dynpin.middleware.collector.service import Service
from dynpin.middleware.collector.storage import Filter
from tests.middleware.collector.conftest import VECTORS, Site, Start, posted, report, vector

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


# -- what no sender can do --------------------------------------------------------------------------------------------


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
    assert posted(service, json.dumps(value).encode("utf-8", "surrogatepass")) in (200, 204, 400)
    service.worker.work()
    assert service.storage.untriaged(1) == []


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_lead_to_an_error(service: Service, body: bytes) -> None:
    assert posted(service, body) in (200, 204, 400)


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
        status = posted(service, report())
        os._exit(0 if status == 204 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert posted(service, report()) == 204
    assert service.storage.groups(Filter()).entries[0].reports == 2
    service.close()
