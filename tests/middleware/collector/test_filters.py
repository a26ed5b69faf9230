"""Filters are choices: what is not known is an error with the list, in pages and API alike."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient

from dynpin import Pin
from dynpin.middleware.collector import collector
from dynpin.middleware.collector.storage import Arrival, Cause, Filter, Triaged
from dynpin.middleware.collector.triage import VERDICTS, Diagnosis, VerdictName
from dynpin.middleware.collector.web import Access, web_app
from dynpin.middleware.collector.web.gate import Gate
from tests.clock import Clock
from tests.middleware.collector.chains import authority
from tests.middleware.collector.conftest import NOW, Site, Start, report, running_site


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A collector with one report, which tests only read."""
    with running_site(file=tmp_path_factory.mktemp("one") / "reports.sqlite") as running:
        running.post(report())
        running.work()
        yield running


@pytest.mark.parametrize(
    ("query", "said"),
    [
        (
            "hots=x",
            "'hots' is not a filter; the names are host, noted_host, mode, verdict, state, pin, issuer, token, group",
        ),
        ("hots!=x", "'hots!' is not a filter"),
        ("since!=7d", "'since!' is not a filter"),
        ("Host=x", "'Host' is not a filter"),
        ("verdict=nosuch", "verdict is one of unknown-ca, foreign-key, private-root"),
        ("verdict!=nosuch", "verdict is one of"),
        ("mode=enforced", "mode is one of enforce, report-only, not 'enforced'"),
        ("state=closed", "state is one of open, muted, resolved, not 'closed'"),
        ("state=", "state is one of open, muted, resolved, not ''"),
        ("host=", "host has no value"),
        ("pin=abc", "pin is a pin in base64"),
        ("group=xyz", "group is the name of a group, 32 hexadecimal digits, not 'xyz'"),
        ("since=yesterday", "since is a time: 24h, 7d, 2026-05-01 or 2026-05-01T12:00Z, not 'yesterday'"),
        ("since=7d&since=8d", "since is a time"),
        ("&".join(f"host={number}.test" for number in range(11)), "more than 10 values of host"),
    ],
)
def test_what_is_not_known_is_an_error_with_the_list(query: str, said: str, one: Site) -> None:
    for path in ("/api/groups", "/api/reports", "/export/groups.csv", "/export/reports.json"):
        answer = one.client.get(f"{path}?{query}")
        assert answer.status_code == 400, path
        assert said in answer.json()["message"]
    for path in ("/", "/groups", "/reports"):
        page = one.client.get(f"{path}?{query}")
        assert page.status_code == 400, path
        assert said.replace("'", "&#39;") in page.text


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("limit=0", "limit is a number from 1 to 500, not '0'"),
        ("limit=501", "limit is a number from 1 to 500, not '501'"),
        ("limit=x", "limit is a number from 1 to 500, not 'x'"),
        ("cursor=x", "cursor is the cursor of the page before, not 'x'"),
    ],
)
def test_a_part_of_a_listing_is_checked_too(query: str, said: str, one: Site) -> None:
    for path in ("/api/groups", "/api/reports"):
        answer = one.client.get(f"{path}?{query}")
        assert (answer.status_code, answer.json()) == (400, {"error": "bad-filter", "message": said})


def test_no_path_ignores_a_name_that_it_does_not_know(one: Site) -> None:
    """Whatever the app routes, but for health, the style sheet and the forms of signing in, which read none."""
    key = one.groups()[0]["group"]
    free = {"/healthz", "/readyz", "/static/style.css", "/sign-in"}
    access = Access(one.storage, one.clock, password=None, user_header=None, open_access=True)
    served = web_app(one.app.service, access)
    assert isinstance(served, Gate)
    assert isinstance(served.app, Starlette)
    routes = [route for route in served.app.routes if isinstance(route, Route) and "GET" in (route.methods or ())]
    assert {route.path for route in routes} > {"/audit", "/set-up", "/groups/{key}", "/metrics", "/api/openapi.json"}
    for route in routes:
        path = route.path.format(key=key, which="served", what="groups", form="csv", host="a.test")
        answer = one.client.get(f"{path}?hots=x")
        assert (answer.status_code == 400) is (route.path not in free), route.path
        if route.path not in free:
            assert "hots" in answer.text, route.path


@pytest.mark.parametrize("path", ["/export/groups.csv?limit=5", "/export/groups.csv?cursor=x", "/?cursor=x"])
def test_what_a_page_does_not_have_is_none_of_its_names(path: str, one: Site) -> None:
    assert one.client.get(path).status_code == 400


def test_the_form_has_choices_and_leads_to_a_url(one: Site) -> None:
    page = one.client.get("/groups").text
    for name, choices in (("state", ["open", "muted", "resolved"]), ("mode", ["enforce", "report-only"])):
        found = re.findall(rf'<select name="{name}".*?</select>', page, re.DOTALL)[0]
        assert re.findall('value="([^"]*)"', found) == ["", *choices]
    form = "page=groups&mode=enforce&verdict=&state=open&field=host&is=is&value=&since="
    answer = one.client.get(f"/filter?{form}")
    assert answer.headers["location"] == "/groups?mode=enforce&state=open"
    assert one.client.get("/filter?page=groups&field=pin&is=is&value=abc").status_code == 400
    assert one.client.get("/filter?page=groups&field=nosuch&is=is&value=abc").status_code == 400


def test_groups_without_a_verdict_can_be_asked_for(site: Start) -> None:
    running = site()
    running.post(report())
    found = running.client.get("/api/groups?verdict=none").json()["entries"]
    assert [group["verdict"] for group in found] == [None]
    assert ">1</b><span>report in this time" in running.client.get("/?verdict=none").text
    running.work()
    assert running.client.get("/api/groups?verdict=none").json()["entries"] == []
    assert running.client.get(f"/api/groups?pin={Pin(b'x' * 32)}").json()["entries"] == []


KINDS = [name for name, verdict in VERDICTS.items() if verdict.severity != "attack"]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from([*KINDS, None]), st.integers(1, 9)), max_size=60))
def test_no_flood_of_other_kinds_pushes_an_attack_off_the_overview(
    tmp_path: Path, flood: list[tuple[VerdictName | None, int]]
) -> None:
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        app = collector(Path(folder) / "r.sqlite", tokens=["demo"], open_access=True, parts=["web"], clock=Clock())
        storage = app.service.storage
        arrived: dict[str, VerdictName | None] = {"shop0.test": "unknown-ca", "shop1.test": "foreign-key"}
        arrived |= {f"junk{number}.test": verdict for number, (verdict, _) in enumerate(flood)}
        # The attacks came first, once each; the flood is newer, and more.
        for number, host in enumerate(arrived):
            often = 1 if host.startswith("shop") else flood[number - 2][1]
            storage.add([arrival(host, NOW - 100 + number) for _ in range(often)], {})
        found = [
            (
                group,
                Triaged(
                    verdict, VERDICTS[verdict].severity, "", Diagnosis(verdict=verdict, reasons=[]).model_dump_json()
                ),
            )
            for group in storage.groups(Filter(), limit=100).entries
            if (verdict := arrived[group.host]) is not None
        ]
        storage.set_verdicts(found)
        page = TestClient(app).get("/").text
        app.close()
    lead = re.findall(r'<h2 id="lead">May be an attack</h2>.*?</section>', page, re.DOTALL)[0]
    assert re.findall('class="host">([^<]*)<', lead) == ["shop1.test", "shop0.test"]
    assert page.index('id="lead"') < page.index('id="new"')


def arrival(host: str, at: float) -> Arrival:
    cause = Cause(hashlib.md5(host.encode(), usedforsecurity=False).hexdigest(), "enforce", host, "", 443, (), ())
    return Arrival(cause, (), at, None, "demo", "192.0.2.0/24", "", at, "{}")


def test_the_overview_leads_with_what_may_be_an_attack_whatever_else_arrives(site: Start) -> None:
    running = site()
    for number in range(3):
        leaf = authority("Friendly Wi-Fi CA").issue(f"shop{number}.test", since=running.clock.now - 86_400)
        chain = [leaf.pem]
        running.post(
            report(hostname=f"shop{number}.test", noted_hostname=None, served_certificate_chain=chain,
                   validated_certificate_chain=chain)
        )  # fmt: skip
    running.work()
    assert {group["severity"] for group in running.groups()} == {"attack"}
    for number in range(40):
        running.clock.forward(1)
        running.post(report(hostname=f"junk{number}.test", noted_hostname=None))
    running.work()
    page = running.client.get("/").text
    lead = re.findall(r'<h2 id="lead">May be an attack</h2>.*?</section>', page, re.DOTALL)[0]
    assert [f"shop{number}.test" in lead for number in range(3)] == [True] * 3
    assert "junk" not in lead
    assert page.index('id="lead"') < page.index('id="new"')
