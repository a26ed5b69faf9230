"""Who may read and decide: passwords and their pauses, sessions, tokens of programs, and what is kept of it."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from argon2 import PasswordHasher
from starlette.testclient import TestClient

from dynpin.middleware.collector import Retention, collector, new_api_token
from dynpin.middleware.collector.worker import prune
from tests.clock import Clock
from tests.middleware.collector.conftest import NOW, Site, Start, report, running_site

HASHER = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
HASH = HASHER.hash("correct horse")
DAY = 86_400


def sign_in(client: httpx.Client, password: str = "correct horse", name: str = "ada") -> httpx.Response:
    return client.post("/sign-in", data={"password": password, "name": name})


def csrf(client: httpx.Client, path: str) -> str:
    found: list[str] = re.findall(r'name="csrf" value="([0-9a-f]+)"', client.get(path).text)
    return found[0]


def token_of(running: Site, *scopes: str, days: float = 30, name: str = "robot") -> dict[str, str]:
    text, token = new_api_token(name, scopes, NOW, days)
    running.storage.add_api_token(token)
    return {"authorization": f"Bearer {text}"}


# -- sessions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "goes_on"),
    [
        (HASH, HASH, True),
        ("correct horse", "correct horse", True),
        (HASH, HASHER.hash("another"), False),
        ("correct horse", "another", False),
    ],
    ids=["same hash", "same text", "other hash", "other text"],
)
def test_a_session_ends_with_a_changed_password(before: str, after: str, goes_on: bool, tmp_path: Path) -> None:
    file = tmp_path / "r.sqlite"
    with running_site(file=file, open_access=False, password=before) as running:
        sign_in(running.client)
        cookies = dict(running.client.cookies)
    with running_site(file=file, open_access=False, password=after) as running:
        running.client.cookies.update(cookies)
        answer = running.client.get("/groups")
        assert answer.status_code == (200 if goes_on else 303)


@pytest.mark.parametrize(
    "broken", ["$argon2id$", HASH[:-8] + "!", HASH.replace("argon2id", "argon2x")], ids=["no hash", "cut", "unknown"]
)
def test_a_hash_that_was_cut_lets_nobody_in_and_is_told(broken: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="begins like an argon2 hash"):
        collector(tmp_path / "r.sqlite", password=broken)


def test_nodes_that_started_before_and_after_another_storage_took_its_place_agree_on_forms(tmp_path: Path) -> None:
    file = tmp_path / "r.sqlite"
    with running_site(file=file) as before:
        before.post(report())
        path = f"/groups/{before.groups()[0]['group']}"
        first = csrf(before.client, path)
        with closing(sqlite3.connect(file)) as db, db:
            db.execute("UPDATE settings SET value = ? WHERE name = 'secret'", ["0" * 64])
        with running_site(file=file) as after:
            assert csrf(before.client, path) == csrf(after.client, path) != first


# -- pauses -----------------------------------------------------------------------------------------------------------


def test_a_pause_says_so_with_429_and_for_how_long(site: Start) -> None:
    running = site(open_access=False, password=HASH)
    for _ in range(10):
        assert sign_in(running.client, "guess").status_code == 403
    running.clock.forward(100)
    page = sign_in(running.client)
    assert page.status_code == 429
    assert page.headers["retry-after"] == "800"
    assert "Too many wrong passwords" in page.text
    assert "14 minutes" in page.text
    answer = running.client.get("/api/groups", auth=("ada", "correct horse"))
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "800")
    assert answer.json()["error"] == "paused"
    running.clock.forward(801)
    assert sign_in(running.client).status_code == 303


def test_a_script_does_not_shut_out_others_at_its_address(site: Start) -> None:
    running = site(open_access=False, password=HASH)
    for _ in range(12):
        running.client.get("/api/groups", auth=("script", "guess"))
    assert running.client.get("/api/groups", auth=("script", "correct horse")).status_code == 429
    assert running.client.get("/api/groups", auth=("ada", "correct horse")).status_code == 200
    assert sign_in(running.client).status_code == 303


def test_who_names_many_accounts_must_wait_for_all_of_them(site: Start) -> None:
    running = site(open_access=False, password=HASH)
    for number in range(50):
        assert running.client.get("/api/groups", auth=(f"account {number}", "guess")).status_code == 401
    assert running.client.get("/api/groups", auth=("one more", "correct horse")).status_code == 429


def test_a_pause_of_one_address_is_none_of_its_neighbour(tmp_path: Path) -> None:
    app = collector(tmp_path / "r.sqlite", password=HASH, clock=Clock())
    script, neighbour = (TestClient(app, client=(address, 1)) for address in ("10.0.0.66", "10.0.0.7"))
    for _ in range(11):
        script.get("/api/groups", auth=("", "guess"))
    assert script.get("/api/groups", auth=("", "correct horse")).status_code == 429
    assert neighbour.get("/api/groups", auth=("", "correct horse")).status_code == 200
    app.close()


# -- what is kept -----------------------------------------------------------------------------------------------------


def test_failed_sign_ins_and_changes_of_state_are_kept_with_who_and_when(site: Start) -> None:
    running = site(open_access=False, password=HASH)
    running.post(report())
    sign_in(running.client, "guess", "mallory")
    sign_in(running.client)
    (group,) = running.groups()
    path = f"/groups/{group['group']}"
    for do in ("mute", "reopen"):
        running.client.post(f"{path}/decide", data={"csrf": csrf(running.client, path), "do": do})
        running.clock.forward(60)
    found = running.client.get("/api/audit").json()["entries"]
    assert [(entry["action"], entry["who"]) for entry in found] == [
        ("open", "ada"),
        ("muted", "ada"),
        ("sign-in", "ada"),
        ("sign-in-failed", "mallory"),
    ]
    assert found[1]["subject"] == group["group"]
    assert found[1]["source"] == "127.0.0.1"
    assert found[0]["at"] == "2027-01-15T08:01:00Z"
    page = running.client.get("/audit").text
    assert "mallory" in page
    assert "wrong password" in page
    assert "muted by <b>ada</b>" in running.client.get(path).text


def test_the_audit_says_that_the_clock_jumped(site: Start) -> None:
    running = site()
    prune(running.storage, Retention(), NOW)
    prune(running.storage, Retention(), NOW + 365 * 86_400)
    page = running.client.get("/audit").text
    assert "365 days ahead" in page
    assert "kept old reports, since the clock jumped ahead" in page
    prune(running.storage, Retention(), NOW + 365 * 86_400, accept_clock=True)
    assert "365 days ahead" not in running.client.get("/audit").text


def test_a_flood_of_wrong_passwords_pushes_no_decision_out(site: Start) -> None:
    running = site(open_access=False, password=HASH)
    running.post(report())
    sign_in(running.client)
    (group,) = running.groups()
    path = f"/groups/{group['group']}"
    running.client.post(f"{path}/decide", data={"csrf": csrf(running.client, path), "do": "mute"})
    with closing(sqlite3.connect(running.file)) as db, db:
        db.executemany(
            "INSERT INTO audit (at, who, source, action, subject) VALUES (0, ?, '', 'sign-in-failed', '')",
            [(str(number),) for number in range(10_050)],
        )
    sign_in(running.client, "guess", "mallory")
    with closing(sqlite3.connect(running.file)) as db:
        assert db.execute("SELECT count(*) FROM audit WHERE action = 'sign-in-failed'").fetchone() == (10_000,)
    assert "muted by <b>ada</b>" in running.client.get(path).text


# -- tokens of programs -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A collector with a password and one group, which has its verdict."""
    file = tmp_path_factory.mktemp("guarded") / "reports.sqlite"
    with running_site(file=file, open_access=False, password=HASH) as running:
        running.post(report())
        running.work()
        yield running


@pytest.mark.parametrize(
    ("scopes", "method", "path", "status"),
    [
        (["read"], "GET", "/api/groups", 200),
        (["read"], "GET", "/metrics", 200),
        (["read"], "GET", "/export/groups.csv", 200),
        (["read"], "GET", "/", 200),
        (["read"], "POST", "/api/groups/{group}/state", 403),
        (["triage"], "POST", "/api/groups/{group}/state", 200),
        (["triage"], "GET", "/api/groups", 403),
        (["read", "triage"], "POST", "/api/groups/{group}/state", 200),
        (["site:www.example.com"], "GET", "/api/groups", 200),
        (["site:www.example.com"], "GET", "/api/reports", 200),
        (["site:www.example.com"], "GET", "/metrics", 403),
        (["site:www.example.com"], "GET", "/", 403),
        (["site:www.example.com"], "POST", "/api/groups/{group}/state", 403),
        (["site:www.example.com", "triage"], "POST", "/api/groups/{group}/state", 200),
        (["site:example.com", "triage"], "POST", "/api/groups/{group}/state", 200),
        (["site:other.example", "triage"], "POST", "/api/groups/{group}/state", 404),
        (["site:other.example", "read", "triage"], "POST", "/api/groups/{group}/state", 200),
    ],
)
def test_a_token_does_what_its_scopes_say(
    scopes: list[str], method: str, path: str, status: int, guarded: Site
) -> None:
    name = f"robot-{len(guarded.storage.api_tokens())}"
    (group,) = guarded.client.get("/api/groups", auth=("", "correct horse")).json()["entries"]
    answer = guarded.client.request(
        method,
        path.format(group=group["group"]),
        headers=token_of(guarded, *scopes, name=name),
        json={"state": "muted"} if method == "POST" else None,
    )
    assert answer.status_code == status, answer.text
    if method == "POST" and status == 200:
        assert answer.json()["state"] == "muted"
        may_read = scopes != ["triage"]
        assert (answer.json().keys() == {"group", "state"}) is not may_read, "it gets what it decided"
        kept = guarded.client.get("/api/audit", auth=("", "correct horse")).json()["entries"]
        assert (kept[0]["action"], kept[0]["who"]) == ("muted", f"token {name}")


def test_a_token_of_a_site_sees_that_site_alone(site: Start) -> None:
    running = site(open_access=False, password=HASH)
    for host in ("a.test", "www.a.test", "b.test", "xa.test"):
        running.post(report(hostname=host, noted_hostname=None))
    token = token_of(running, "site:a.test")
    for query in ("", "host=b.test&host=a.test&host=www.a.test", "mode=enforce"):
        for what in ("groups", "reports"):
            found = running.client.get(f"/api/{what}?{query}", headers=token).json()["entries"]
            assert {entry["host"] for entry in found} == {"a.test", "www.a.test"}, query
    rows = running.client.get("/export/reports.json", headers=token).json()
    assert {row["host"] for row in rows} == {"a.test", "www.a.test"}


@pytest.mark.parametrize("end", ["expired", "revoked", "unknown"])
def test_a_token_ends(end: str, site: Start) -> None:
    running = site(open_access=False)
    headers = token_of(running, "read", days=7)
    assert running.client.get("/api/groups", headers=headers).status_code == 200
    if end == "expired":
        running.clock.forward(7 * DAY)
    elif end == "revoked":
        assert running.storage.revoke_api_token("robot")
    else:
        headers = {"authorization": "Bearer dynpin_nothing"}
    answer = running.client.get("/api/groups", headers=headers)
    assert answer.status_code == 401
    assert ("not known" if end == "unknown" else end) in answer.json()["message"]


def test_where_everyone_reads_a_token_may_do_what_it_may(site: Start) -> None:
    running = site(open_access=True)
    headers = token_of(running, "site:a.test")
    for told, status in (({}, 403), (headers, 200)):
        sent = {**told, "if-match": '"0"'}
        assert running.client.put("/api/sites/a.test/state", json={"revision": 1}, headers=sent).status_code == status
    assert running.client.get("/api/groups", headers=headers).status_code == 200
    assert running.client.get("/api/groups", headers={"authorization": "Bearer of-a-proxy"}).status_code == 200
    assert running.client.get("/api/groups", headers={"authorization": "Bearer dynpin_nothing"}).status_code == 401


def test_when_a_token_was_used_is_kept_to_the_minute(site: Start) -> None:
    running = site(open_access=False)
    headers = token_of(running, "read")
    assert [token.used_at for token in running.storage.api_tokens()] == [None]
    for _ in range(3):
        running.client.get("/api/groups", headers=headers)
        running.clock.forward(20)
    assert [token.used_at for token in running.storage.api_tokens()] == [NOW]
    running.client.get("/api/groups", headers=headers)
    assert [token.used_at for token in running.storage.api_tokens()] == [NOW + 60]


@pytest.mark.parametrize(
    ("scheme", "peer", "status", "forwarded"),
    [("http", "10.0.0.5", 403, {}), ("https", "10.0.0.5", 200, {}), ("http", "127.0.0.9", 200, {}),
     ("http", "::1", 200, {}),
     # A proxy on this machine that is not trusted, and one that is.
     ("http", "127.0.0.1", 403, {"x-forwarded-for": "127.0.0.1"}), ("http", "127.0.0.1", 403, {"via": "1.1 x"}),
     ("http", "127.0.0.7", 403, {"forwarded": "for=10.0.0.5;proto=https"}), ("http", "127.0.0.7", 200, {}),
     ("http", "127.0.0.7", 200, {"x-forwarded-for": "127.0.0.1", "via": "1.1 x"}),
     ("http", "127.0.0.7", 403, {"x-forwarded-for": "127.0.0.1, 10.0.0.5"}),
     ("http", "127.0.0.7", 200, {"x-forwarded-for": "10.0.0.5", "x-forwarded-proto": "https"})],
)  # fmt: skip
def test_a_token_is_refused_in_clear_text_off_loopback(
    scheme: str, peer: str, status: int, forwarded: dict[str, str], tmp_path: Path
) -> None:
    app = collector(tmp_path / "r.sqlite", password=HASH, clock=Clock(), trusted_proxies=["::ffff:127.0.0.7"])
    text, token = new_api_token("robot", ["read"], NOW, 30)
    app.service.storage.add_api_token(token)
    client = TestClient(app, base_url=f"{scheme}://reports.test", client=(peer, 1))
    answer = client.get("/api/groups", headers={"authorization": f"Bearer {text}", **forwarded})
    assert answer.status_code == status
    if status == 403:
        assert answer.json()["error"] == "clear-text"
        kept = client.get("/api/audit", auth=("", "correct horse")).json()["entries"]
        assert (kept[0]["action"], kept[0]["who"]) == ("clear-text-token", "token robot")
    app.close()


def test_the_storage_has_no_token(site: Start) -> None:
    running = site()
    text = token_of(running, "read")["authorization"].removeprefix("Bearer ")
    assert text.startswith("dynpin_")
    assert text.encode() not in b"".join(file.read_bytes() for file in running.file.parent.glob("reports.sqlite*"))


@pytest.mark.parametrize("scope", ["", "admin", "site:", "site:*.a.test", "site:a b"])
def test_scopes_are_checked(scope: str) -> None:
    with pytest.raises(ValueError, match="is not a scope: they are read, triage and site:HOST"):
        new_api_token("robot", [scope], NOW, 30)


@pytest.mark.parametrize("days", [0, -1, float("nan"), float("inf"), 36_501])
def test_a_token_expires(days: float) -> None:
    with pytest.raises(ValueError, match="cannot be valid for"):
        new_api_token("robot", ["read"], NOW, days)


def test_a_token_without_a_password_opens_the_api_alone(site: Start) -> None:
    running = site(open_access=False)
    assert running.client.get("/api/groups", headers=token_of(running, "read")).status_code == 200
    assert running.client.get("/api/groups").status_code == 403


# -- names of the collector -------------------------------------------------------------------------------------------


def test_the_set_up_page_shows_the_public_url_and_never_the_host_header(tmp_path: Path) -> None:
    for public_url, shown in (
        ("https://reports.example/pins", "https://reports.example/pins/r/demo/"),
        ("", "/r/demo/"),
    ):
        app = collector(tmp_path / "r.sqlite", tokens=["demo"], open_access=True, public_url=public_url, clock=Clock())
        client = TestClient(app, base_url="https://reports.example")
        page = client.get("/set-up", headers={"x-forwarded-host": "evil.test"}).text
        assert f"{shown}enforce" in page
        assert f"{shown}report-only" in client.get("/").text
        assert "evil.test" not in page
        if not public_url:
            page = client.get("/set-up", headers={"host": "evil.test"}).text
            assert "evil.test" not in page
            assert "--public-url" in page
        app.close()


@pytest.mark.parametrize(
    ("host", "status"),
    [("reports.example", 200), ("REPORTS.example:8443", 200), ("localhost:8080", 200), ("127.0.0.1", 200),
     ("[::1]:8080", 200), ("evil.test", 421), ("reports.example.evil.test", 421), ("", 421)],
)  # fmt: skip
def test_with_a_public_url_other_names_are_refused(host: str, status: int, tmp_path: Path) -> None:
    app = collector(
        tmp_path / "r.sqlite", tokens=["demo"], open_access=True, public_url="https://reports.example", clock=Clock()
    )
    client = TestClient(app)
    assert client.get("/groups", headers={"host": host}).status_code == status
    assert client.get("/healthz", headers={"host": host}).status_code == 200, "asked by address"
    assert client.post("/r/demo/enforce", json=report(), headers={"host": host}).status_code == 204
    app.close()


def test_what_a_program_asks_for_and_is_not_there_is_an_error(site: Start) -> None:
    running = site()
    answer = running.client.get("/api/audit?who=robot")
    assert (answer.status_code, answer.json()["error"]) == (400, "bad-filter")
    assert "'who'" in answer.json()["message"]
    running.post(report())
    (group,) = running.client.get("/api/groups").json()["entries"]
    path = f"/api/groups/{group['group']}/state"
    answer = running.client.post(path, json={"state": "muted", "until": "7d"})
    assert (answer.status_code, answer.json()["error"]) == (400, "bad-state")
    (group,) = running.client.get("/api/groups").json()["entries"]
    assert group["state"] == "open"
