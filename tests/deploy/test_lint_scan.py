"""`dynpin lint --scan`: the headers of many sites, counted in the shape of the published studies."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynpin.deploy.lint.scan import CLASSES, MAX_AGES, MAX_LINE, Scan
from tests.deploy.commands import dynpin
from tests.deploy.test_lint import PINS, VECTORS, B, K, digest

FOREIGN = digest("foreign")
LEAF = f'pin-sha256="{K}"'
STUDIES = json.loads((VECTORS / "studies.json").read_text())["studies"]
STUDY = next(each for each in STUDIES if "ElevenPaths" in each["study"])
MEMBERS = st.sampled_from(["host", "status", "headers", "chain_pins", "Public-Key-Pins"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(MEMBERS, inner),
)


def line(headers: object, *, host: str = "site.test", status: object = 200, **more: object) -> bytes:
    return json.dumps({"host": host, "status": status, "headers": headers, **more}).encode()


def one(value: str, name: str = "Public-Key-Pins") -> Mapping[str, str]:
    return {name: value}


@pytest.mark.parametrize(
    ("headers", "chain", "expected"),
    [
        ({}, [], "absent"),
        ({"Strict-Transport-Security": "max-age=1"}, [], "absent"),
        (one(f'{PINS}; report-uri="https://r.example/"', "Public-Key-Pins-Report-Only"), [], "report-only"),
        (one(PINS), [], "ignored"),
        (one(f"{PINS}; max-age=never"), [], "ignored"),
        (one("max-age=300"), [], "ignored"),
        (one('pin-sha512="abcd"; max-age=300'), [], "ignored"),
        (one(f"{PINS}; max-age=0"), [], "unpins"),
        (one("max-age=0"), [], "unpins"),
        (one(f"{LEAF}; max-age=300"), [], "no-backup"),
        (one(f"{LEAF}; {LEAF}; max-age=300"), [], "no-backup"),
        (one(f"{PINS}; max-age=300"), [], "noted"),
        (one(f"{PINS}; max-age=300"), [K, FOREIGN], "noted"),
        (one(f"{PINS}; max-age=300"), [FOREIGN], "mismatched"),
        (one(f"{PINS}; max-age=300"), [K, B], "no-backup"),
        # the first field counts (RFC 7469 §2.3.1), in whatever way they are written down
        ({"public-key-pins": [f"{PINS}; max-age=300", "nonsense"]}, [], "noted"),
        ([["Public-Key-Pins", "nonsense"], ["Public-Key-Pins", f"{PINS}; max-age=300"]], [], "ignored"),
        ({**one(f"{PINS}; max-age=300"), **one(PINS, "Public-Key-Pins-Report-Only")}, [], "noted"),
    ],
)
def test_the_class_of_a_response(headers: object, chain: list[str], expected: str) -> None:
    scan = Scan()
    scan.add_line(line(headers, chain_pins=chain))
    assert dict(scan.classes) == {expected: 1}


def test_an_address_is_never_pinned() -> None:
    scan = Scan()
    scan.add_line(line(one(f"{PINS}; max-age=300"), host="192.0.2.1"))
    assert dict(scan.classes) == {"ignored": 1}


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b"null",
        b"[" * 100_000,
        b'{"status": 200}',
        b'{"host": 5, "status": 200}',
        b'{"host": "a b", "status": 200}',
        b'{"host": "a.test", "status": "200"}',
        b'{"host": "a.test", "status": true}',
        b'{"host": "a.test", "status": 200, "headers": 5}',
        b'{"host": "a.test", "status": 200, "headers": {"A": 5}}',
        b'{"host": "a.test", "status": 200, "headers": [["A"]]}',
        b'{"host": "a.test", "status": 200, "headers": ["AB"]}',
        b'{"host": "a.test", "status": 200, "chain_pins": "x"}',
        b'{"host": "a.test", "status": 200, "chain_pins": [5]}',
        b'{"host": "a.test", "status": 200, "x": "' + b"y" * MAX_LINE + b'"}',
    ],
    ids=lambda text: text[:40],
)
def test_a_line_that_cannot_be_read_is_counted_and_passed_over(text: bytes) -> None:
    scan = Scan()
    with pytest.raises(ValueError, match=r"."):
        scan.add_line(text)
    scan.add_line(line({}))
    assert (scan.lines, scan.unreadable, scan.responses) == (2, 1, 1)


@given(JSON)
def test_no_json_breaks_a_scan(value: Any) -> None:
    scan = Scan()
    for text in (json.dumps(value), json.dumps({"host": "a.test", "status": 200, "headers": value})):
        with contextlib.suppress(ValueError):
            scan.add_line(text.encode())
    assert scan.lines == 2 == scan.unreadable + scan.responses + scan.unanswered
    json.dumps(scan.to_dict())


@given(st.lists(st.text(alphabet=st.characters(codec="latin-1"), max_size=60)))
def test_every_response_has_one_class(values: list[str]) -> None:
    scan = Scan()
    for value in values:
        scan.add_line(line(one(value)))
    assert scan.responses == len(values)
    assert sum(row.responses for row in scan.figures() if row.table == "classes") == len(values)


def test_the_tables_have_the_rows_of_the_study() -> None:
    numbers = STUDY["numbers"]
    rows = Scan().figures()
    assert [row.name for row in rows if row.table == "pins"] == list(numbers["pins_histogram"])
    ages = numbers["max_age_share_percent"]
    assert [row.name for row in rows if row.table == "max_age"] == list(ages)
    assert [str(seconds) for seconds in MAX_AGES] == list(ages)[:-1]
    assert [row.name for row in rows if row.table == "classes"] == list(CLASSES)


def test_the_histogram_of_the_study_comes_out_of_headers_that_are_like_it() -> None:
    """As many headers with as many pins as ElevenPaths counted give its table again."""
    histogram = STUDY["numbers"]["pins_histogram"]
    pins = {"0-1": 1, "2": 2, "3": 3, "4-6": 5, "7-9": 8, "10-12": 10, ">=13": 17}
    scan = Scan()
    for name, count in histogram.items():
        texts = [f'pin-sha256="{digest(str(number))}"' for number in range(pins[name])]
        for _ in range(count):
            scan.add_line(line(one("; ".join([*texts, "max-age=5184000"]))))
    counted = {row.name: row.responses for row in scan.figures() if row.table == "pins"}
    assert counted == histogram
    assert sum(histogram.values()) == STUDY["numbers"]["alexa_domains_with_HPKP"]


SMALL = [
    line({}),
    line({}, status=None),
    line(one(f"{PINS}; max-age=300; includeSubDomains"), host="=cmd().test"),
    line(one(f'{PINS}; max-age=5184000; report-uri="https://r.example/"')),
    b"nonsense",
]


@pytest.fixture(params=["plain", "gz", "stdin"])
def printed(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    text = b"\n".join(SMALL) + b"\n"
    file = tmp_path / ("scan.jsonl.gz" if request.param == "gz" else "scan.jsonl")
    file.write_bytes(gzip.compress(text) if request.param == "gz" else text)
    if request.param == "stdin":
        return lambda *options: dynpin("lint", "--scan", "-", *options, stdin=text.decode())
    return lambda *options: dynpin("lint", "--scan", str(file), *options)


def test_as_json(printed: Any) -> None:
    result = printed("--json")
    said = json.loads(result.stdout)
    assert result.exit_code == 0
    assert (said["lines"], said["responses"], said["unanswered"], said["unreadable"]) == (5, 3, 1, 1)
    assert {"name": "noted", "responses": 2, "share": 2 / 3} in said["classes"]
    faults = {each["name"]: each for each in said["faults"]}
    assert faults["max-age-too-short"] == {
        "name": "max-age-too-short",
        "responses": 1,
        "share": 0.5,
        "severity": "warning",
        "example": "=cmd().test",
    }
    assert {"name": "includeSubDomains", "responses": 1, "share": 0.5} in said["options"]
    assert ":5: " in result.stderr


def test_as_csv_without_any_text_of_strangers(printed: Any) -> None:
    rows = list(csv.DictReader(io.StringIO(printed("--csv").stdout)))
    assert {"table": "max_age", "name": "5184000", "responses": "1", "share": "0.5"} in rows
    assert {"table": "faults", "name": "max-age-too-short", "responses": "1", "share": "0.5"} in rows
    assert "cmd" not in printed("--csv").stdout


def test_as_tables(printed: Any) -> None:
    said = printed().stdout
    assert "5 lines: 3 responses, 1 without an answer, 1 that could not be read." in said
    assert "No line has chain_pins" in said
    for piece in ("noted", "66.67%", "max-age-too-short", "warning, such as =cmd().test"):
        assert piece in said


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.jsonl", None, "No such file"),
        ("empty.jsonl", b"", "holds no line"),
        ("words.jsonl", b"a\nb\n", "no line could be read"),
        ("cut.gz", gzip.compress(b"\n".join(SMALL * 500))[:-20], "cannot be read after line"),
        ("plain.gz", b"\n".join(SMALL), "cannot be read after line 0"),
        ("gz.jsonl", gzip.compress(b"\n".join(SMALL)), "is compressed: rename it to end in .gz"),
    ],
)
def test_a_file_that_is_no_scan(name: str, content: bytes | None, message: str, tmp_path: Path) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    result = dynpin("lint", "--scan", str(file))
    assert (result.exit_code, result.stdout) == (2, "")
    assert name in result.stderr
    assert message in result.stderr


@pytest.mark.parametrize("name", ["pipe.jsonl", "pipe.jsonl.gz"])
def test_a_pipe_with_a_name(name: str, tmp_path: Path) -> None:
    """As a shell makes one of <(zcat crawl.gz): it has no size, and no position."""
    pipe = tmp_path / name
    os.mkfifo(pipe)
    text = (line({}) + b"\n") * 1500
    data = gzip.compress(text) if name.endswith(".gz") else text
    writer = threading.Thread(target=pipe.write_bytes, args=[data], daemon=True)
    writer.start()
    result = dynpin("lint", "--scan", str(pipe), "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    assert json.loads(result.stdout)["responses"] == 1500


def test_what_a_scan_keeps_does_not_grow_with_its_lines() -> None:
    scan = Scan()
    for number in range(300):
        scan.add_line(line(one(f"{PINS}; max-age={number + 1}"), host=f"h{number}.test"))
    assert len(scan.max_ages) == 1
    assert next(row.responses for row in scan.figures() if row.name == "others") == 300


@pytest.mark.parametrize(
    "options", [["--csv"], ["--scan", "x", PINS], ["--scan", "x", "--chain", "y"], ["--scan", "x", "--sarif"]]
)
def test_options_that_do_not_go_together(options: list[str]) -> None:
    assert dynpin("lint", *options).exit_code == 2


def test_a_long_line_is_not_held(tmp_path: Path) -> None:
    """A line of 64 MB is passed over in pieces, and what follows it counts."""
    file = tmp_path / "scan.jsonl.gz"
    with gzip.open(file, "wb", compresslevel=1) as out:
        for _ in range(64):
            out.write(b"y" * MAX_LINE)
        out.write(b"\n" + line({}) + b"\n")
    said = json.loads(dynpin("lint", "--scan", str(file), "--json").stdout)
    assert (said["lines"], said["unreadable"], said["responses"]) == (2, 1, 1)
