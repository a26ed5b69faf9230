"""The bodies of reports: given back as they came; and files that something has damaged."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynpin.middleware.collector import Alerts, Limits, ServiceSettings, Token
from dynpin.middleware.collector.intake import decoded
from dynpin.middleware.collector.service import Service
from dynpin.middleware.collector.storage import Filter
from tests.clock import Clock
from tests.middleware.collector.conftest import NOW, Site, Start, posted, report, running_site, vector
from tests.middleware.collector.test_pages import key

CHROME = json.dumps(vector("real-chrome-yubico")["body"])


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def service(tmp_path: Path, clock: Clock) -> Iterator[Service]:
    many = 10**9
    service = Service(
        tmp_path / "r.sqlite", ServiceSettings(tokens=["demo"], limits=Limits(many, many, many), clock=clock)
    )
    yield service
    service.close()


def bodies(service: Service, limit: int = 500) -> list[str | None]:
    """The bodies that are kept, newest first."""
    return [stored.body for stored in service.storage.reports(Filter(), limit=limit).entries]


def dated(number: int, host: str = "www.example.com") -> bytes:
    """The body of a report that was made in some second."""
    return json.dumps(report(hostname=host, date_time=f"2026-05-01T00:{number // 60:02}:{number % 60:02}Z")).encode()


# What a report may look like.
VALUES = ['"2017-01-01T00:00:00Z"', '"2017"', '""', '"now"', "null", "7", '"1970-01-01T00:00:01Z"', '"\\u0032017"']
MEMBERS = ['"date-time"', '"effective-expiration-date"', '"date\\u002dtime"', '"x\\"date-time"', '"Date-Time"', '"x"']
SPACE = st.text(" \t\r\n", max_size=2)
MEMBER = st.builds(
    lambda name, before, after, value: f"{name}{before}:{after}{value}",
    st.sampled_from(MEMBERS) | st.text(max_size=9).map(json.dumps),
    SPACE,
    SPACE,
    st.sampled_from(VALUES)
    | st.text(max_size=9).map(json.dumps)
    | st.sampled_from(VALUES).map(lambda value: f'{{"date-time": {value}}}'),
)
TEXTS = st.lists(MEMBER, max_size=5).map(
    lambda members: "{" + ",".join([*members, '"hostname":"ü.test"', '"known-pins":["x"]']) + "}"
)


def test_each_body_is_given_back_as_it_came(service: Service) -> None:
    @settings(deadline=None, max_examples=60)
    @given(TEXTS | st.binary(max_size=30))
    def check(sent: str | bytes) -> None:
        body = sent if isinstance(sent, bytes) else sent.encode()
        if posted(service, body) == 204:
            assert bodies(service, 1) in ([decoded(body)], [None])

    check()
    assert len(bodies(service)) > len([body for body in bodies(service) if body]) > 20


# -- damaged files ----------------------------------------------------------------------------------------------------


def _made(folder: Path) -> Path:
    """A file with two groups, whose reports no pages have shown yet."""
    path = folder / "reports.sqlite"
    service = Service(path, ServiceSettings(tokens=["demo"], clock=Clock()))
    for host in ("a.test", "a.test", "a.test", "b.a.test"):
        assert posted(service, dated(1, host)) == 204
    service.storage.add_token(Token("shop", "Shop", ("a.test",), NOW))
    service.close()
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return _made(tmp_path)


def test_a_number_that_json_has_not_is_given_out_as_null(site: Start, file: Path) -> None:
    running = site(file=file)
    group = key(running, "b.a.test")

    def bad(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    for number in ("1e999", "-Infinity", "NaN"):
        with closing(sqlite3.connect(file)) as db, db:
            text = f'{{"hostname": "b.a.test",  "x": {number}, "known-pins": ["ümlaut"]}}'
            assert (
                db.execute(
                    "UPDATE samples SET body = ? WHERE report_id = (SELECT max(report_id) FROM samples)", (text,)
                ).rowcount
                == 1
            )
        raw = running.client.get(f"/groups/{group}/report.json").raise_for_status()
        assert json.loads(raw.text, parse_constant=bad)["x"] is None


PATHS = [
    "/", "/groups", "/reports", "/set-up", "/groups/{key}", "/groups/{key}/report.json", "/groups/{key}/served.pem",
    "/api/groups", "/api/reports", "/export/reports.csv", "/export/reports.json", "/export/groups.ndjson", "/metrics",
    "/healthz",
]  # fmt: skip
DAMAGES = {
    "body": "UPDATE samples SET body = substr(body, 1, 60)",
    "no body": "DELETE FROM samples",
    "body of another kind": "UPDATE samples SET body = '[1, {}]'",
    "body that is nested": f"UPDATE samples SET body = '{'[' * 5000}'",
    "pins": "UPDATE groups SET known_pins = 'x', validated_pins = '{}'",
    "diagnosis": "UPDATE diagnoses SET diagnosis = substr(diagnosis, 1, 99)",
    "diagnosis of another form": 'UPDATE diagnoses SET diagnosis = \'{"verdict": "x", "served": [{}]}\'',
    "chain of another form": "UPDATE diagnoses SET diagnosis = replace(diagnosis, 'signed_by_next', 'signed')",
    "no diagnosis": "DELETE FROM diagnoses",
    "verdict": "UPDATE groups SET verdict = 'of-another-version', severity = 'unheard-of'",
    "severity": "UPDATE diagnoses SET diagnosis = replace(diagnosis, 'false-alarm', 'unheard-of')",
    "hosts of a token": "UPDATE tokens SET hosts = 'x'",
    "times": "UPDATE reports SET observed_at = 9e99, expires_at = -9e99",
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, sqlite3.Connection]]:
    """A collector of three groups that have their verdicts, and a copy of its file as it is then."""
    file = _made(tmp_path_factory.mktemp("sound"))
    with running_site(file=file, alerts=Alerts(lambda subject, text: None)) as running:
        for _ in range(3):
            assert running.post(CHROME).status_code == 204
        running.work()
        with closing(sqlite3.connect(":memory:")) as copy:
            with closing(sqlite3.connect(file)) as db:
                db.backup(copy)
            yield running, copy


@pytest.fixture
def judging(sound: tuple[Site, sqlite3.Connection]) -> Site:
    """That collector; its file holds again what it held."""
    running, copy = sound
    with closing(sqlite3.connect(running.file)) as db:
        copy.backup(db)
    return running


@pytest.mark.parametrize("judged", ["judged before", "judged anew"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_no_damaged_row_leads_to_an_error(judging: Site, damage: str, judged: str) -> None:
    running, group = judging, key(judging, "demo.yubico.com")
    with closing(sqlite3.connect(running.file)) as db:
        db.executescript(DAMAGES[damage])
        if judged == "judged anew":
            db.executescript("UPDATE groups SET judged_with = 'before'")
    for path in PATHS:
        answer = running.client.get(path.format(key=group))
        assert answer.status_code in ((200, 404) if "/groups/{key}/" in path else (200,)), path
        if answer.headers["content-type"] == "application/json":
            answer.json()
    assert running.post(CHROME).status_code == 204


def test_a_page_that_cannot_be_read_says_which_file(site: Start, file: Path) -> None:
    running = site(file=file)
    with closing(sqlite3.connect(file)) as db, db:
        db.execute("UPDATE groups SET host = CAST(x'ff' AS TEXT)")
    for path in ("/groups", "/api/groups", "/export/groups.json"):
        answer = running.client.get(path)
        assert answer.status_code == 503
        assert str(file) in answer.text


def test_one_fault_does_not_end_the_verdicts(tmp_path: Path) -> None:
    told = threading.Event()

    def tell(subject: str, text: str) -> None:
        if not told.is_set():
            told.set()
            raise LookupError("a fault that nobody thought of")
        again.set()

    again = threading.Event()
    clock = Clock()
    service = Service(
        tmp_path / "r.sqlite", ServiceSettings(tokens=["demo"], alerts=Alerts(tell, every=0), clock=clock)
    )
    posted(service, dated(1, "first.test"))
    assert told.wait(60)
    clock.forward(61)  # it is tried again after a minute
    posted(service, dated(1, "second.test"))
    assert again.wait(60), "the thread that judges and tells goes on"
    service.close()
