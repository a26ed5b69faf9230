"""The intake: every request gets the answer that docs/collector.md promises, and never a 500."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.middleware.collector.conftest import VECTORS, Start, report, vector

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
def test_every_request_of_the_vectors(site: Start, sent: dict[str, Any]) -> None:
    running = site()
    status, code, flags = ANSWERS[sent["id"]]
    body = sent["body"] if isinstance(sent["body"], str) else json.dumps(sent["body"])
    answer = running.client.request(
        sent["method"], "/r/demo/enforce", content=body, headers={"content-type": sent["content_type"]}
    )
    assert answer.status_code == status
    if code:
        told = answer.json()
        assert code in ([told["error"]] if "error" in told else [one["error"] for one in told["declined"]])
    stored = running.reports()
    taken = sent["method"] == "POST" and (status == 204 or sent["id"] == "lookout-reporting-api-batch")
    assert len(stored) == taken
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
    assert (stored["mode"], stored["user-agent"], stored["source"]) == ("report-only", "kiosk/1", "127.0.0.0/24")
    assert stored["received-at"] == "2027-01-15T08:00:00Z"


def test_reports_of_one_cause_are_one_group(site: Start) -> None:
    running = site()
    first, second = vector("real-chrome-yubico")["body"], dict(vector("real-chrome-yubico")["body"])
    second["date-time"], second["known-pins"] = "2016-09-07T00:00:00Z", list(reversed(first["known-pins"]))
    for body in (first, second):
        running.post(body)
    running.post(first, "/r/demo/report-only")
    groups = running.groups()
    assert sorted((group["reports"], group["mode"]) for group in groups) == [(1, "report-only"), (2, "enforce")]
