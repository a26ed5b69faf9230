"""What the intake refuses and tells, and what it stores although it is odd."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.middleware.collector.conftest import Site, Start, report


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
    "with capitals in what is no name": json.dumps(report(hostname="NO Name İ", noted_hostname="Σ Σ")).encode(),
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
    # The links of the pages name the host as it is shown.
    wanted = {name: newest[name] for name in ("host", "noted_host")}
    assert running.client.get("/api/groups", params=wanted).json()["entries"], wanted


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
