"""The demo: the whole main job, played for real, and told to people and to programs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from dynpin.lab.demo import demo
from dynpin.lab.story import Step


@pytest.fixture(scope="module")
def told() -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-m", "dynpin", "demo", "--json"], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    parsed: dict[str, object] = json.loads(done.stdout)
    return parsed


def facts(told: dict[str, object]) -> list[dict[str, object]]:
    steps = told["steps"]
    assert isinstance(steps, list)
    return [step["facts"] for step in steps]


def test_every_step_did_what_it_must(told: dict[str, object]) -> None:
    assert told["ok"] is True
    assert len(facts(told)) == 9


def test_the_attacker_reads_everything_without_pins_and_nothing_with_them(told: dict[str, object]) -> None:
    without, with_pins = facts(told)[2:4]
    assert "Bearer the-customers-own-token" in str(without["attacker_read"])
    assert int(str(without["attacker_bytes"])) > 0
    assert with_pins["attacker_bytes"] == 0
    assert "bank.test shows none of its pinned keys" in str(with_pins["error"])


def test_the_report_that_arrived_is_the_one_of_the_refusal(told: dict[str, object]) -> None:
    report = facts(told)[4]["report"]
    assert isinstance(report, dict)
    assert (report["hostname"], report["port"], report["noted-hostname"]) == ("bank.test", 443, "bank.test")
    pinned = str(facts(told)[0]["header"])
    assert all(known in pinned for known in report["known-pins"])


def test_for_people_it_fits_80_columns() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dynpin", "demo"], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[-1].startswith("9 of 9 steps did what they must")
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("happened", "ok"), [([], False), ([True], True), ([True, False], False), ([False, True], False)]
)
def test_a_step_is_right_when_all_that_happened_is(happened: list[bool], ok: bool) -> None:
    step = Step("title", "why")
    for right in happened:
        step.tell("something", right)
    assert step.ok is ok
    assert step.as_json(1)["ok"] is ok


def test_the_story_notices_a_client_that_enforces_nothing() -> None:
    # The demo's exit code means something only if a failure of pinning makes a step fail.
    with demo() as played:
        assert played.first_visit().ok
        for host in ("bank.test", "shop.test"):
            played.store.forget(host)
        assert not played.second_visit().ok
        assert played.hotspot_without_dynpin().ok
        assert not played.hotspot_with_dynpin().ok
