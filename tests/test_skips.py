"""What skipped tests need is said in one line at the end of the run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.skips import missing_line

SKIPPED = """
import pytest


@pytest.mark.skipif(True, reason="wget2 is not installed: apt-get install wget2")
def test_one() -> None: ...


def test_two() -> None:
    pytest.importorskip("no_such_package.part")


def test_three() -> None:
    pytest.skip("only root may mount")
"""


@pytest.mark.parametrize(
    ("reasons", "line"),
    [
        ([], None),
        (["only root may mount"], None),
        (["wget2 is not installed"], "1 test was skipped. Not installed: wget2 (1)."),
        (
            ["pebble, certbot is not installed: apt-get install pebble certbot"] * 2
            + ["Skipped: pebble is not installed: apt-get install pebble"]
            + ["gunicorn is not installed: pip install --group frameworks"],
            "4 tests were skipped. Not installed: pebble (3), certbot (2), gunicorn (1). "
            "apt-get install certbot pebble; pip install --group frameworks",
        ),
    ],
)
def test_reasons_are_grouped_by_what_is_missing(reasons: list[str], line: str | None) -> None:
    assert missing_line(reasons) == line


def test_the_line_ends_the_run(tmp_path: Path) -> None:
    """With the suite's own conftest, on two processes as `make test` has it."""
    (tmp_path / "test_few.py").write_text(SKIPPED)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.conftest"]
    run = [*command, "--numprocesses=2", f"--rootdir={tmp_path}", str(tmp_path)]
    done = subprocess.run(run, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    *_, line, counts = done.stdout.splitlines()
    assert line == (
        "2 tests were skipped. Not installed: no_such_package (1), wget2 (1). "
        "apt-get install wget2; pip install no_such_package"
    ), done.stdout + done.stderr
    assert counts.startswith("3 skipped")
