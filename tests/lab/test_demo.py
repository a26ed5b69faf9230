"""The demo: the scenario of the whole life of pins, for people and for programs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from dynpin.lab.timeline import Chapter, Remark


def run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "dynpin", "demo", *arguments], capture_output=True, text=True, timeout=300, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


def test_the_json_says_that_every_step_was_right() -> None:
    told = json.loads(run("--json"))
    assert told["ok"] is True
    steps = told["steps"]
    assert [step["step"] for step in steps] == list(range(1, 10))
    assert all(step["ok"] and step["why"] for step in steps)
    happened = [[each["text"] for each in step["happened"]] for step in steps]
    assert "the attacker read Bob's token" in happened[2]
    assert "the attacker received 0 bytes of HTTP from Alice" in happened[3]
    assert "the collector lists bank.test:443" in happened[4]


def test_for_people_it_fits_80_columns() -> None:
    lines = run().splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[-1].startswith("9 of 9 steps did what they must")


@pytest.mark.parametrize(
    ("happened", "ok"), [([], False), ([True], True), ([True, False], False), ([False, True], False)]
)
def test_a_chapter_is_right_when_all_that_happened_is(happened: list[bool], ok: bool) -> None:
    chapter = Chapter("title", "why", [Remark("something", holds) for holds in happened])
    assert chapter.ok is ok
    assert chapter.to_dict(1)["ok"] is ok
