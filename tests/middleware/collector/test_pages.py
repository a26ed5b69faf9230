"""The pages over HTTP: who may read, what filters and decisions do, and what hostile reports do not."""

from __future__ import annotations

import csv
import io
import json
import re
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest
from argon2 import PasswordHasher
from starlette.applications import Starlette
from starlette.routing import Mount

from dynpin.middleware.collector import collector
from tests.clock import Clock
from tests.middleware.collector.conftest import Site, Start, report, running_site, serving, vector

PAGES = ["/", "/groups", "/reports", "/set-up", "/api/groups", "/api/reports", "/export/groups.csv", "/metrics"]
HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>{{7*7}}"


PASSWORD = "correct horse"
# A hash that takes no time: what a slow one costs is not the question here.
HASH = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A collector with four reports, which tests only read."""
    with running_site(file=tmp_path_factory.mktemp("filled") / "reports.sqlite") as running:
        yield fill(running)


def fill(running: Site) -> Site:
    running.post(vector("real-chrome-yubico")["body"], "/r/demo/report-only")
    running.post(vector("real-chrome-ciscodude")["body"])
    running.post(report(hostname="a.test", noted_hostname="a.test"))
    running.post(report(hostname="b.a.test", noted_hostname="a.test", include_subdomains=True))
    return running


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A collector without a report."""
    with running_site(file=tmp_path_factory.mktemp("empty") / "reports.sqlite") as running:
        yield running


def key(running: Site, host: str) -> str:
    return str(running.groups(f"host={host}")[0]["group"])


# -- who may read -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PAGES)
def test_nobody_reads_unless_told_who_may(site: Start, path: str) -> None:
    running = site(open_access=False)
    answer = running.client.get(path)
    assert answer.status_code == 403
    assert "open_access" in answer.text
    assert running.post(report()).status_code == 204, "the intake is public"


def test_sign_in_with_a_password(site: Start) -> None:
    running = site(open_access=False, password=HASH)
    running.post(report())
    assert running.client.get("/groups").headers["location"] == "/sign-in"
    assert running.client.get("/api/groups").status_code == 401
    wrong = running.client.post("/sign-in", data={"password": "wrong"})
    assert wrong.status_code == 403
    assert "password is wrong" in wrong.text
    right = running.client.post("/sign-in", data={"password": "correct horse"})
    cookie = right.headers["set-cookie"].lower()
    assert right.status_code == 303
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    page = running.client.get("/groups")
    assert "www.example.com" in page.text
    csrf = re.findall(r'name="csrf" value="([0-9a-f]+)"', page.text)[0]
    assert running.client.post("/sign-out", data={"csrf": "0" * 64}).status_code == 403
    assert running.client.get("/groups").status_code == 200
    running.client.post("/sign-out", data={"csrf": csrf})
    assert running.client.get("/groups").status_code == 303


def test_a_session_ends(site: Start) -> None:
    running = site(open_access=False, password=HASH)
    running.client.post("/sign-in", data={"password": "correct horse"})
    assert running.client.get("/").status_code == 200
    running.clock.forward(13 * 3600)
    assert running.client.get("/").status_code == 303


def test_guesses_make_nobody_wait_but_who_signs_in(site: Start) -> None:
    begun, go_on = threading.Event(), threading.Event()

    class Held(Clock):
        """What works out passwords asks for the time before it begins, and waits for the test here."""

        def __call__(self) -> float:
            if threading.current_thread().name.startswith("dynpin-collector-passwords"):
                begun.set()
                assert go_on.wait(120)
            return super().__call__()

    running = site(open_access=False, password=HASH, clock=Held())

    def ask(path: str, **more: Any) -> int:
        return running.client.get(path, **more).status_code

    # More than Starlette has threads.
    with ThreadPoolExecutor(50) as people:
        guesses = [people.submit(ask, "/metrics", auth=("any", f"guess {number}")) for number in range(50)]
        try:
            assert begun.wait(120)
            assert ask("/api/groups") == 401
            assert running.post(report()).status_code == 204
            assert not any(guess.done() for guess in guesses)
        finally:
            go_on.set()
        assert {guess.result() for guess in guesses} == {401, 429}


def test_programs_send_the_password(site: Start) -> None:
    running = site(open_access=False, password=HASH)
    assert running.client.get("/api/groups", auth=("any", "correct horse")).status_code == 200
    assert running.client.get("/api/groups", auth=("any", "wrong")).status_code == 401


def test_a_reverse_proxy_names_the_user(site: Start) -> None:
    running = site(open_access=False, user_header="X-Remote-User", trusted_proxies=["127.0.0.1"])
    assert running.client.get("/").status_code == 403
    assert running.client.get("/", headers={"X-Remote-User": "ada"}).status_code == 200


@pytest.mark.parametrize("path", ["/", "/sign-in", "/static/style.css", "/nothing", "/api/groups"])
def test_every_answer_forbids_scripts_and_frames(empty: Site, path: str) -> None:
    headers = empty.client.get(path).headers
    assert headers["content-security-policy"].startswith("default-src 'none'; style-src 'self'")
    assert headers["x-content-type-options"] == "nosniff"


# -- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        *PAGES, "/healthz", "/groups?host=nobody.test", "/?since=30d", "/?until=9999-12-31T23:59",
        "/?since=0001-01-01T00:00", "/?since=99999w",
    ],
)  # fmt: skip
def test_every_page_answers_with_and_without_reports(empty: Site, filled: Site, path: str) -> None:
    assert filled.client.get(path).status_code == 200
    assert empty.client.get(path).status_code == 200


@pytest.mark.parametrize("number", ["1e999", "-1e400", "Infinity", "NaN"])
def test_a_number_that_an_older_version_let_in_breaks_nothing(site: Start, number: str) -> None:
    running = site()
    running.post(report() | {"x": 424_242})
    running.reports()
    with closing(sqlite3.connect(running.file)) as db, db:
        body = json.dumps(report() | {"x": 424_242}).replace("424242", number)
        assert db.execute("UPDATE samples SET body = ?", (body,)).rowcount == 1
        # As of another version, so that it is judged anew too.
        db.execute("UPDATE groups SET judged_with = ''")

    def bad(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    (group,) = running.groups()
    for path in ("/api/reports", "/export/reports.json", "/export/reports.ndjson"):
        found = json.loads(running.client.get(path).raise_for_status().text, parse_constant=bad)
        (entry,) = found if isinstance(found, list) else found.get("entries", [found])
        assert (entry["report"]["hostname"], entry["report"]["x"]) == ("www.example.com", None)
    for path in ("/", "/reports", "/export/reports.csv", f"/groups/{group['group']}"):
        assert running.client.get(path).status_code == 200


def test_the_empty_overview_says_what_to_do_next(empty: Site) -> None:
    page = empty.client.get("/").text
    assert "/r/demo/report-only" in page
    assert "Copy the header line" in page


def test_one_is_not_many(filled: Site) -> None:
    group = key(filled, "a.test")
    assert "<b>1</b><span>report</span>" in filled.client.get(f"/groups/{group}").text
    assert "<b>4</b><span>open groups</span>" in filled.client.get("/").text
    assert "<b>1</b><span>open group</span>" in filled.client.get("/?host=a.test").text


def test_the_group_page_explains_the_false_alarm(filled: Site) -> None:
    page = unescape(filled.client.get(f"/groups/{key(filled, 'demo.yubico.com')}").text)
    for words in ("False alarm", "Path variance", "pinned key", "not in the path", "signed by the one above"):
        assert words in page
    assert "The policy is report-only" in page or "the policy is report-only" in page


@pytest.mark.parametrize(
    ("query", "hosts"),
    [
        ("host=a.test", {"a.test"}),
        ("host=*.a.test", {"b.a.test"}),
        ("host!=*.a.test&noted_host=a.test", {"a.test"}),
        ("noted_host=a.test", {"a.test", "b.a.test"}),
        ("mode=report-only", {"demo.yubico.com"}),
        ("mode!=report-only&verdict!=undecided", {"ciscodude.net"}),
        ("verdict=path-variance&verdict=wrong-pin-set", {"demo.yubico.com", "ciscodude.net"}),
        ("pin=VjLZe/p3W/PJnd6lL8JVNBCGQBZynFLdZSTIqcO0SJ8=", {"demo.yubico.com"}),
        ("pin=6X0iNAQtPIjXKEVcqZBwyMcRwq1yW60549axatu3oDE=", {"ciscodude.net"}),
        ("issuer=RapidSSL SHA256 CA - G3", {"ciscodude.net"}),
        ("since=1h&host=a.test", {"a.test"}),
        ("until=2020-01-01", set()),
        ("state!=open", set()),
    ],
)
def test_filters(filled: Site, query: str, hosts: set[str]) -> None:
    assert {group["host"] for group in filled.groups(query)} == hosts
    assert {entry["host"] for entry in filled.reports(query)} == hosts
    page = filled.client.get(f"/groups?{query}").text
    assert {
        host for host in ("a.test", "b.a.test", "ciscodude.net", "demo.yubico.com") if f'"host">{host}<' in page
    } == hosts
    rows = list(csv.DictReader(io.StringIO(filled.client.get(f"/export/reports.csv?{query}").text)))
    assert {row["host"] for row in rows} == hosts


def test_the_filter_form_leads_to_a_url_to_share(filled: Site) -> None:
    answer = filled.client.get("/filter?page=groups&mode=enforce&field=host&is=not&value=a.test&since=7d")
    assert answer.headers["location"] == "/groups?mode=enforce&host!=a.test&since=7d"


@pytest.mark.parametrize(
    "query",
    [
        "since=yesterday",
        "limit=0",
        "limit=x",
        "cursor=x",
        "&".join(["host=a"] * 1 + [f"host={n}.test" for n in range(30)]),
    ],
)
def test_a_bad_filter_is_told(filled: Site, query: str) -> None:
    answer = filled.client.get(f"/api/groups?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"] == "bad-filter"
    if not query.startswith("limit"):
        assert filled.client.get(f"/groups?{query}").status_code == 400


@pytest.mark.parametrize("what", ["reports", "groups"])
def test_cursors_give_each_entry_once(filled: Site, what: str) -> None:
    seen: list[str] = []
    cursor = ""
    for _ in range(9):
        page = filled.client.get(f"/api/{what}?limit=1&cursor={cursor}").json()
        seen += [entry["host"] for entry in page["entries"]]
        cursor = page["cursor"]
        if cursor is None:
            break
    assert sorted(seen) == ["a.test", "b.a.test", "ciscodude.net", "demo.yubico.com"]


def test_downloads(filled: Site) -> None:
    group = key(filled, "demo.yubico.com")
    body = vector("real-chrome-yubico")["body"]
    assert filled.client.get(f"/groups/{group}/served.pem").text == "".join(body["served-certificate-chain"])
    assert filled.client.get(f"/groups/{group}/validated.pem").text == "".join(body["validated-certificate-chain"])
    assert filled.client.get(f"/groups/{group}/report.json").json() == body
    assert filled.client.get(f"/groups/{group}/other.pem").status_code == 404
    assert filled.client.get(f"/groups/{'0' * 32}").status_code == 404


def test_exports_agree(filled: Site) -> None:
    listed = filled.reports("limit=500")
    assert filled.client.get("/export/reports.json").json() == listed
    lines = filled.client.get("/export/reports.ndjson").text.splitlines()
    assert [json.loads(line) for line in lines] == listed
    assert filled.client.get("/export/reports.json?host=nobody").json() == []
    assert filled.client.get("/export/reports.xml").status_code == 404


def test_the_overview_counts_what_was_dropped_a_moment_ago(site: Start) -> None:
    running = site()
    running.post(report())
    assert ">0</b><span>dropped at the intake" in running.client.get("/").text
    for _ in range(3):
        running.post("no json")
    assert ">3</b><span>dropped at the intake" in running.client.get("/").text


def test_metrics(site: Start) -> None:
    filled = fill(site())
    filled.post("no json")
    filled.work()
    text = filled.client.get("/metrics").text
    assert 'dynpin_collector_reports_total{outcome="accepted",reason=""} 4' in text
    assert 'dynpin_collector_reports_total{outcome="rejected",reason="not-json"} 1' in text
    assert 'dynpin_collector_groups_by_verdict{verdict="path-variance"} 1' in text


# -- deciding ---------------------------------------------------------------------------------------------------------


def test_mute_resolve_reopen(site: Start) -> None:
    filled = fill(site())
    group = key(filled, "a.test")
    page = filled.client.get(f"/groups/{group}").text
    csrf = re.findall(r'name="csrf" value="([0-9a-f]+)"', page)[0]
    for do, state in (("mute", "muted"), ("resolve", "resolved"), ("reopen", "open")):
        answer = filled.client.post(f"/groups/{group}/decide", data={"csrf": csrf, "do": do})
        assert answer.headers["location"] == f"/groups/{group}"
        assert [found["host"] for found in filled.groups(f"state={state}&host=a.test")] == ["a.test"]


@pytest.mark.parametrize("form", [{"do": "mute"}, {"do": "mute", "csrf": "0" * 64}, {"do": "mute", "csrf": "ü"}])
def test_a_form_of_another_site_decides_nothing(filled: Site, form: dict[str, str]) -> None:
    assert filled.client.post(f"/groups/{key(filled, 'a.test')}/decide", data=form).status_code == 403
    assert filled.groups("state=muted") == []


# -- hostile reports --------------------------------------------------------------------------------------------------


def hostile_report() -> dict[str, object]:
    certificate = f"-----BEGIN CERTIFICATE-----\n{HOSTILE}\n-----END CERTIFICATE-----"
    return report(
        hostname=HOSTILE,
        noted_hostname=HOSTILE,
        known_pins=[HOSTILE],
        served_certificate_chain=[certificate],
        validated_certificate_chain=[certificate],
        **{HOSTILE: HOSTILE},
    )


def test_a_hostile_report_is_text_everywhere(site: Start) -> None:
    running = site()
    assert running.post(hostile_report(), **{"user-agent": HOSTILE}).status_code == 204
    (group,) = running.groups()
    for path in ("/", "/groups", "/reports", f"/groups/{group['group']}", f"/groups?host={HOSTILE}"):
        page = running.client.get(path).text
        assert "<script" not in page
        assert "<img" not in page
        assert "49" not in re.findall(r"onerror=alert\(1\)&gt;(.{2})", page)


@pytest.mark.parametrize("formula", ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1"])
def test_no_cell_is_a_formula(site: Start, formula: str) -> None:
    running = site()
    running.post(report(hostname=formula, noted_hostname=formula), **{"user-agent": formula.strip()})
    for what in ("reports", "groups"):
        (row,) = csv.DictReader(io.StringIO(running.client.get(f"/export/{what}.csv").text, newline=""))
        assert all(not cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in row.values() if cell)
        assert row["host"].lstrip().startswith("'")


# -- mounted ----------------------------------------------------------------------------------------------------------


def test_mounted_under_a_path(tmp_path: Path) -> None:
    inner = collector(tmp_path / "mounted.sqlite", tokens=["demo"], open_access=True, clock=Clock())
    with (
        serving(Starlette(routes=[Mount("/pins", inner)])) as url,
        httpx.Client(base_url=url, trust_env=False, timeout=120) as client,
    ):
        assert client.post("/pins/r/demo/enforce", json=report()).status_code == 204
        page = client.get("/pins/").text
        links = set(re.findall(r'(?:href|action)="([^"]+)"', page)) - {"#content"}
        assert links
        for link in links:
            assert link.startswith("/pins/")
            assert client.get(unescape(link)).status_code in (200, 303), link
        assert "/pins/r/demo/enforce" in client.get("/pins/set-up").text
    inner.close()


def test_mounted_in_fastapi(tmp_path: Path) -> None:
    fastapi = pytest.importorskip("fastapi")
    inner = collector(tmp_path / "mounted.sqlite", tokens=["demo"], open_access=True, clock=Clock())
    app = fastapi.FastAPI()
    app.mount("/pins", inner)
    with serving(app) as url, httpx.Client(base_url=f"{url}/pins", trust_env=False, timeout=120) as client:
        assert client.post("/r/demo/enforce", json=report()).status_code == 204
        assert "www.example.com" in client.get("/").text
        assert client.get("/api/nothing").json()["error"] == "not-found"
    inner.close()
