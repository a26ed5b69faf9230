"""What the nodes of a site share: kept by the collector, changed by compare and set, behind the site's own token."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from dynpin.middleware.collector import new_api_token
from dynpin.middleware.policy.shared import LONGEST_STATE
from tests.middleware.collector.conftest import NOW, Site, Start

HOST = "shop.example.com"
PATH = f"/api/sites/{HOST}/state"
PIN = "d6qzRu9zOECb90Uez27xWltNsj0e1Md7GkYYkVoZWmM="
HEADER = f'Public-Key-Pins: pin-sha256="{PIN}"; max-age=60'
SENDERS = [{"machine": f"web{number}", "identity": f"{number:016x}"} for number in (1, 2)]
NODE: dict[str, Any] = {
    "header": HEADER,
    "since": NOW,
    "chains": [[PIN]],
    "seen_at": NOW,
    "sender": SENDERS[0],
    "former": [],
    "doubled": None,
}
STATE: dict[str, Any] = {"revision": 1, "ramp": None, "nodes": {"a": NODE}, "past": [], "history": None}

Ask = Callable[..., httpx.Response]


@pytest.fixture
def closed(site: Start) -> Site:
    return site(open_access=False, password="long enough to be one")


def asking(site: Site, *scopes: str) -> Ask:
    """Sends a request with a new token of these scopes."""
    text, token = new_api_token(f"of {scopes}", scopes, NOW, 1)
    assert site.storage.add_api_token(token)

    def ask(method: str = "GET", body: Any = None, path: str = PATH, **fields: str) -> httpx.Response:
        headers = {"authorization": f"Bearer {text}", "content-type": "application/json"}
        headers |= {name.replace("_", "-"): value for name, value in fields.items()}
        content = body if isinstance(body, str | bytes | None) else json.dumps(body)
        return site.client.request(method, path, content=content, headers=headers)

    return ask


def test_of_two_writers_one_is_first(closed: Site) -> None:
    ask = asking(closed, f"site:{HOST}")
    empty = ask()
    assert (empty.status_code, empty.json()["version"], empty.json()["state"]) == (200, 0, None)
    assert empty.headers["dynpin-time"] == f"{NOW:.3f}"
    first = ask("PUT", STATE, if_match=empty.headers["etag"])
    assert (first.status_code, first.json()["version"], first.json()["state"]) == (200, 1, STATE)
    late = ask("PUT", STATE | {"revision": 9}, if_match=empty.headers["etag"])
    assert (late.status_code, late.json()["error"], late.headers["etag"]) == (412, "changed", first.headers["etag"])
    assert ask(if_none_match=first.headers["etag"]).status_code == 304
    assert ask(if_none_match=f"W/{first.headers['etag']}").status_code == 304
    again = ask("PUT", STATE | {"revision": 2}, if_match=first.headers["etag"])
    assert again.json()["version"] == 2
    assert ask(if_none_match=first.headers["etag"]).json()["state"]["revision"] == 2
    assert again.json()["changed_by"] == f"token of {(f'site:{HOST}',)}"


def test_a_change_is_in_the_audit_and_the_mere_time_of_a_look_is_not(closed: Site) -> None:
    ask = asking(closed, f"site:{HOST}")
    etag = ask("PUT", STATE, if_match='"0"').headers["etag"]
    seen = STATE | {"nodes": {"a": NODE | {"seen_at": NOW + 600}}}
    etag = ask("PUT", seen, if_match=etag).headers["etag"]
    two = STATE | {"nodes": {"a": NODE | {"doubled": SENDERS}}}
    etag = ask("PUT", two, if_match=etag).headers["etag"]
    ask("PUT", seen | {"history": {"version": 1, "host": HOST, "events": []}, "nodes": {}}, if_match=etag)
    changes = [(entry.action, entry.subject) for entry in reversed(closed.storage.audit())]
    said = ["node a", "two nodes use the name a", "history, node a"]
    assert changes == [("site-state", f"{HOST}: {each}") for each in said]


@pytest.mark.parametrize(
    ("scopes", "method", "path", "status"),
    [
        (["site:shop.example.com"], "GET", PATH, 200),
        (["site:example.com"], "PUT", PATH, 200),
        (["read"], "GET", PATH, 200),
        (["read", "triage"], "PUT", PATH, 403),
        (["site:example.org"], "GET", PATH, 403),
        (["site:p.example.com"], "PUT", "/api/sites/shop.example.com/state", 403),
        (["site:shop.example.com"], "PUT", "/api/sites/example.com/state", 403),
        (["site:shop.example.com"], "GET", "/api/sites/SHOP.example.com/state", 404),
        (["site:shop.example.com"], "GET", "/api/sites/..%2F/state", 404),
        (["site:shop.example.com"], "POST", PATH, 405),
    ],
)
def test_a_token_changes_its_own_site_alone(
    scopes: list[str], method: str, path: str, status: int, closed: Site
) -> None:
    body = STATE if method == "PUT" else None
    assert asking(closed, *scopes)(method, body, path, if_match='"0"').status_code == status


def test_a_person_reads_it_and_changes_nothing(closed: Site) -> None:
    password = ("any", "long enough to be one")
    assert closed.client.get(PATH, auth=password).json()["version"] == 0
    answer = closed.client.put(PATH, auth=password, json=STATE, headers={"if-match": '"0"'})
    assert (answer.status_code, answer.json()["error"]) == (403, "scope")
    assert closed.client.get(PATH).status_code == 401


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 400, "the text: "),
        (b"[]", 400, "the text: "),
        ("[" * 100_000, 400, "the text: "),
        (STATE | {"more": 1}, 400, "more: "),
        (STATE | {"revision": -1}, 400, "revision: "),
        (STATE | {"nodes": {"a b": NODE}}, 400, "nodes.a b"),
        (STATE | {"nodes": {str(number): NODE for number in range(65)}}, 400, "nodes: "),
        (STATE | {"nodes": {"a": NODE | {"header": "Set-Cookie: a"}}}, 400, "nodes.a.header: "),
        (STATE | {"nodes": {"a": NODE | {"chains": [["short"]]}}}, 400, "nodes.a.chains.0.0: "),
        (STATE | {"nodes": {"a": NODE | {"since": "now"}}}, 400, "nodes.a.since: "),
        (json.dumps(STATE).replace(f"{NOW}", "NaN", 1), 400, "nodes.a.since: "),
        (STATE | {"history": {"version": 2, "host": HOST, "events": []}}, 400, "history.version: "),
        (STATE | {"history": {"version": 1, "host": HOST, "events": [{"at": {}}]}}, 400, "history.events.0.at"),
        (json.dumps(STATE) + " " * LONGEST_STATE, 413, "at most 262144 bytes"),
    ],
    ids=str,
)
def test_what_is_no_state_is_refused(body: Any, status: int, said: str, closed: Site) -> None:
    ask = asking(closed, f"site:{HOST}")
    answer = ask("PUT", body, if_match='"0"')
    assert (answer.status_code, said in answer.json()["message"]) == (status, True), answer.text
    assert ask().json()["version"] == 0


def test_a_state_is_measured_as_it_is_kept(closed: Site) -> None:
    """Members that a body leaves out are written out: what fitted as it came may be too long for everybody to read."""
    ask = asking(closed, f"site:{HOST}")

    def written(last: str) -> str:
        events = [*[{"a": "x" * 8000}] * 32, {"a": last}]
        return json.dumps({"history": {"version": 1, "host": HOST, "events": events}}, separators=(",", ":"))

    body = written("x" * (LONGEST_STATE - len(written(""))))
    assert len(body) == LONGEST_STATE
    answer = ask("PUT", body, if_match='"0"')
    assert (answer.status_code, answer.json()["error"]) == (413, "too-long")
    assert ask().json()["version"] == 0


@pytest.mark.parametrize(
    ("fields", "status"),
    [({}, 428), ({"if_match": '"0"', "content_type": "text/plain"}, 400), ({"if_match": "*"}, 412)],
    ids=str,
)
def test_a_write_says_what_it_has_seen(fields: dict[str, str], status: int, closed: Site) -> None:
    assert asking(closed, f"site:{HOST}")("PUT", STATE, **fields).status_code == status
