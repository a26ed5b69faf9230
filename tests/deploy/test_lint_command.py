"""`dynpin lint`: values, header lines, HAR files; as text, JSON and SARIF; exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.deploy.commands import app, dynpin
from tests.deploy.test_lint import EXAMPLES, PINS, SAME_AS_CONTROL, made

SOUND = f"{PINS}; max-age=5184000"
SHORT = f"{PINS}; max-age=300"


@pytest.mark.parametrize(
    "example", [EXAMPLES[0], EXAMPLES[21], EXAMPLES[46], EXAMPLES[54]], ids=lambda each: each["fault"]
)
def test_a_list_of_findings_as_json(example: Any, tmp_path: Path) -> None:
    assert example["fault"] != SAME_AS_CONTROL
    context = tmp_path / "context.json"
    context.write_text(json.dumps(made(example["context"])))
    header = made(example["header"])
    value = [] if header["value"] is None else [header["value"]]
    result = dynpin("lint", "--json", "--name", header["name"], "--context", str(context), *value)
    findings = json.loads(result.stdout)
    named = next(each for each in findings if each["fault"] == example["fault"])
    assert named["severity"] == example["severity"]
    assert {"message", "fix", "section", "span", "effect"} <= named.keys()
    assert result.exit_code == (0 if example["severity"] == "info" else 1)


def test_a_sound_header_is_fine() -> None:
    result = dynpin("lint", SOUND)
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "No fault found.")
    assert dynpin("lint", "--json", SOUND).stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["Public-Key-Pins", "public-key-pins-report-only"])
def test_a_whole_line_of_a_header_is_read_as_one(name: str) -> None:
    value = f'{SHORT}; report-uri="https://r.example.net/"'
    line = dynpin("lint", "--json", f"{name}: {value}")
    assert "read as a line of Public-Key-Pins" in line.stderr
    assert json.loads(line.stdout) == json.loads(dynpin("lint", "--json", "--name", name, value).stdout)


def test_a_person_sees_the_part_the_reason_and_the_fix() -> None:
    result = dynpin("lint", SHORT)
    assert result.exit_code == 1
    for piece in ("max-age-too-short", "> max-age=300", "Why   RFC 7469 §4.1", "Fix   Begin with an hour"):
        assert piece in result.stdout


def test_a_header_is_printed_in_one_line_to_be_copied() -> None:
    longer = f'{SOUND}; note="{"wider than a terminal " * 10}"'
    assert f"Public-Key-Pins: {longer}\n" in dynpin("lint", longer).stdout


def test_fail_on_moves_the_threshold() -> None:
    assert dynpin("lint", SHORT, "--fail-on", "error").exit_code == 0
    assert dynpin("lint", f"{SOUND}; preload").exit_code == 0
    assert dynpin("lint", f"{SOUND}; preload", "--fail-on", "info").exit_code == 1


def test_header_lines_from_stdin() -> None:
    response = f"HTTP/1.1 200 OK\r\nServer: x\r\nPublic-Key-Pins: {SOUND}\r\npublic-key-pins: {SHORT}\r\n"
    findings = json.loads(dynpin("lint", "--json", "-", stdin=response).stdout)
    assert [(each["fault"], each["source"]) for each in findings] == [("multiple-headers", "stdin")]
    both = f'Public-Key-Pins: {SOUND}\nPublic-Key-Pins-Report-Only: {PINS};\n report-uri="https://r.example.net/"\n'
    findings = json.loads(dynpin("lint", "--json", "-", stdin=both).stdout)
    assert {(each["fault"], each["field"]) for each in findings} == {
        ("enforcing-and-report-only-together", "Public-Key-Pins"),
        ("enforcing-and-report-only-together", "Public-Key-Pins-Report-Only"),
    }


def test_a_hostile_header_does_not_reach_the_terminal() -> None:
    for attack in ("\x1b[2J", "\x9b2J", "\u202e"):
        for value in (f"{SOUND}; report-uri={attack}x", f'{SOUND}; report-uri="//{attack}"', f"pin-sha256={attack}K"):
            shown = dynpin("lint", value).stdout
            assert not {*attack} & {"\x1b", "\x9b", "\u202e"} & {*shown}
            assert "\N{REPLACEMENT CHARACTER}" in shown


def test_header_lines_need_not_be_utf_8() -> None:
    result = CliRunner().invoke(app, ["lint", "--json", "-"], input=b"Public-Key-Pins: pin-sha256=\xe9\n")
    assert "pin" in json.loads(result.stdout)[0]["fault"]


def har(tmp_path: Path, *responses: tuple[str, dict[str, str]]) -> str:
    entries = [
        {"request": {"url": url}, "response": {"headers": [{"name": n, "value": v} for n, v in headers.items()]}}
        for url, headers in responses
    ]
    path = tmp_path / "visit.har"
    path.write_text(json.dumps({"log": {"entries": entries}}))
    return str(path)


def test_a_har_file(tmp_path: Path) -> None:
    own = "https://www.example.com"
    path = har(
        tmp_path,
        (f"{own}/", {"Public-Key-Pins": f'{SOUND}; report-uri="{own}/r"'}),
        (f"{own}/style.css", {"Content-Type": "text/css"}),
        ("https://cdn.example.net/x.js", {}),
    )
    findings = json.loads(dynpin("lint", "--json", path).stdout)
    assert {(each["fault"], each["source"]) for each in findings} == {
        ("report-uri-same-host", f"{own}/"),
        ("header-missing-on-some-responses", f"{own}/"),
    }
    missing = next(each for each in findings if each["fault"].startswith("header-missing"))
    assert "/style.css" in missing["message"]
    assert "cdn" not in missing["message"]


def test_sarif() -> None:
    result = dynpin("lint", "--sarif", f"{SHORT}; preload")
    log = json.loads(result.stdout)
    assert log["version"] == "2.1.0"
    [run] = log["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == ["max-age-too-short", "directive-unknown"]
    assert [each["level"] for each in run["results"]] == ["warning", "note"]
    for each in run["results"]:
        assert rules[each["ruleIndex"]]["id"] == each["ruleId"]
        region = each["locations"][0]["physicalLocation"]["region"]
        snippet = region["snippet"]["text"]
        assert f"{SHORT}; preload"[region["startColumn"] - 1 : region["endColumn"] - 1] == snippet
    assert result.exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give its value"),
        (("--name", "Server", SOUND), "'Server' is neither"),
        (("--context", "nowhere.json", SOUND), "nowhere.json"),
        (("nowhere.har",), "nowhere.har"),
        (("-",), "no Public-Key-Pins"),
    ],
    ids=["no value", "other field", "no context", "no HAR", "no header line"],
)
def test_wrong_usage_and_unreadable_input(arguments: tuple[str, ...], said: str) -> None:
    result = dynpin("lint", *arguments, stdin="Server: x\n")
    assert result.exit_code == 2
    assert said in result.stderr
    assert "Traceback" not in result.output


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.har").write_text('{"log": {}}')
    result = dynpin("lint", str(tmp_path / "x.har"))
    assert (result.exit_code, "not an HTTP Archive" in result.stderr) == (2, True)
    result = dynpin("lint", "--context", str(tmp_path / "x.har"), SOUND)
    assert result.exit_code == 0
    (tmp_path / "x.har").write_text("[]")
    assert dynpin("lint", "--context", str(tmp_path / "x.har"), SOUND).exit_code == 2
