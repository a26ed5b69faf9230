"""The targets hold for every example that they begin with, and the engines find what breaks one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.__main__ import NAMES
from tests.fuzz.engines import run_hypothesis
from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("name", NAMES)
def test_a_target_holds_for_its_seeds_and_for_what_is_made_of_them(name: str) -> None:
    check, seeds = TARGETS[name]
    for seed in seeds():
        check(seed)
    assert run_hypothesis(check, seeds(), seconds=0, examples=200, repeatable=True) >= 200


def test_what_breaks_a_target_is_found() -> None:
    def breaks(data: bytes) -> None:
        assert b'";' not in data or b"\x00" not in data

    with pytest.raises(AssertionError):
        run_hypothesis(breaks, TARGETS["header"].seeds(), seconds=0, examples=5_000, repeatable=True)


def test_the_command() -> None:
    command = [sys.executable, "-m", "tests.fuzz", "host", "--engine=hypothesis", "--seconds=0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "nothing found"), done.stderr
    done = subprocess.run([*command, "nonsense"], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 2
    assert "no target nonsense" in done.stderr
