"""`dynpin lab score` as a shell starts it: its output, its files, and its exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dynpin.cli.app import app
from dynpin.cli.errors import run
from dynpin.lab.score import DATA
from tests.cli.processes import COMMAND, dynpin


@pytest.mark.parametrize(("rules", "code"), [(("first-use",), 0), (("first-use", "directive-repeated"), 1)])
def test_the_exit_code_tells_whether_a_rule_is_broken(rules: tuple[str, ...], code: int, tmp_path: Path) -> None:
    chosen = [word for rule in rules for word in ("--rule", rule)]
    page = tmp_path / "score.html"
    done = dynpin("lab", "score", "--agent", "naive", "--json", "--html", page, *chosen)
    assert done.returncode == code
    told = json.loads(done.stdout)
    assert [rule["id"] for rule in told["rules"]] == list(rules)
    assert told["counts"] == {"held": 1, "broken": code, "not_testable": 0}
    assert told["broken_by_level"] == {"must": code, "should": 0, "may": 0}
    assert "first-use" in page.read_text()


@pytest.mark.parametrize(("options", "code"), [((), 0), (("--strict",), 1)])
def test_a_broken_should_is_reported_and_is_an_error_only_with_strict(
    options: tuple[str, ...], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """The model of Firefox sends no reports, which the RFC requires with a SHOULD."""
    asked = ["lab", "score", "--agent", "firefox", "--rule", "report-sent", "--processes", "1", *options]
    assert run(lambda: app(asked)) == code
    told = capsys.readouterr().out
    assert "0 held, 1 broken, 0 not testable" in told
    assert "Broken: 1 SHOULD. No MUST is broken; --strict makes these an error too." in told


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((), "no --agent: give"),
        (("--agent", "nobody"), "there is no agent 'nobody'"),
        (("--agent", "no-such-program {url}"), "no-such-program: no such program is installed"),
        (("--agent", "missing.toml"), "missing.toml: No such file"),
        (("--agent", "naive", "--rule", "none"), "there is no rule 'none'"),
        (("--agent", "naive", "--refused", "5"), "for a command that is run for each visit"),
        (("--agent", "naive", "--html", "no/folder.html"), "no: no such folder"),
        (("--agent", "naive", "--html", "folder.html"), "folder.html: a folder"),
        (("--agent", "true {url}", "--forget", "'"), "--forget ': No closing quotation"),
        (("--agent", "true {url}", "--refused", "0"), "exit code 0 cannot be both served and refused"),
        (("--agent", "naive", "--html", "score.pdf"), "ends in .html"),
        (("--agent", "naive", "--rule", "first-use", "--timeout", "inf"), "Invalid value for '--timeout'"),
        (("--export-vectors", "."), "name a new or an empty folder"),
        (("--export-vectors", "no/folder"), "no: no such folder"),
    ],
)
def test_wrong_usage_is_reported(
    arguments: tuple[str, ...],
    why: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "something").touch()
    (tmp_path / "folder.html").mkdir()
    monkeypatch.chdir(tmp_path)
    assert run(lambda: app(["lab", "score", *arguments])) == 2
    assert why in capsys.readouterr().err


def test_an_agent_that_can_be_tested_in_nothing_is_no_success(tmp_path: Path) -> None:
    (tmp_path / "idle.toml").write_text(
        f'title = "idle"\ncommand = ["{sys.executable}", "-c", "", "{{url}}"]\nnames = "own"\n'
    )
    done = dynpin("lab", "score", "--agent", "idle.toml", folder=tmp_path)
    assert done.returncode == 2
    assert b"nothing could be tested: the visit of bank.test failed" in done.stderr
    assert done.stdout == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_costs_no_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    page.symlink_to("/dev/full")
    assert run(lambda: app(["lab", "score", "--agent", "naive", "--rule", "first-use", "--html", str(page)])) == 2
    told = capsys.readouterr()
    assert "1 held, 0 broken" in told.out
    assert f"{page}: No space left on device" in told.err


def test_the_data_is_written_for_others(tmp_path: Path) -> None:
    done = dynpin("lab", "score", "--export-vectors", "rules", folder=tmp_path)
    assert done.returncode == 0
    written = {path.relative_to(tmp_path / "rules") for path in (tmp_path / "rules").rglob("*")}
    assert written == {path.relative_to(DATA) for path in DATA.rglob("*")}
    assert "CC0" in (tmp_path / "rules/LICENSE").read_text()


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_every_way_to_stop_it_ends_the_agents_too(by: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import os, pathlib, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"pathlib.Path({str(tmp_path / 'part')!r}).write_text(f'{{os.getpid()}} {{child.pid}}')\n"
        f"os.rename({str(tmp_path / 'part')!r}, {str(tmp_path / 'pids')!r})\n"
        "time.sleep(600)\n"
    )
    (tmp_path / "slow.toml").write_text(
        f'title = "slow"\nnames = "own"\ncommand = ["{sys.executable}", "{tmp_path / "slow.py"}", "{{url}}"]\n'
    )
    place = tmp_path / "temporary"
    place.mkdir()
    process = subprocess.Popen(
        [*COMMAND, "lab", "score", "--agent", "slow.toml", "--timeout", "500"],
        cwd=tmp_path,
        env=os.environ | {"TMPDIR": str(place)},
        stderr=subprocess.PIPE,
    )
    pids = tmp_path / "pids"
    while not pids.exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(by)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert told == b"dynpin: stopped\n"
    # On a busy machine a killed process ends a little later.
    deadline = time.monotonic() + 60
    while not all(_has_ended(int(pid)) for pid in pids.read_text().split()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert list(place.iterdir()) == []


def _has_ended(pid: int) -> bool:
    """Whether a process is gone, or a zombie that nobody has waited for."""
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"
