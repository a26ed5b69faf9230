"""`dynpin simulate`: studies read and refused, tables, JSON, pictures and advice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from typer.testing import CliRunner, Result

from dynpin.cli.app import app
from dynpin.errors import InvalidStudy
from dynpin.lab.simulation import PRESETS, Risks, SitePolicy, Study, advise, read_study
from dynpin.lab.simulation.advice import Advice
from dynpin.lab.simulation.calendar import ALL, Attack, CAChange, Compromise, Loss, Mistake, Rotation, Unpin
from dynpin.lab.simulation.population import Traces
from dynpin.lab.simulation.reading import DAY, seconds
from dynpin.lab.simulation.study import EXAMPLE, study_of

HOUR = 3600


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["simulate", *map(str, arguments)])


# -- the file --------------------------------------------------------------------------------------------------------

EVERYTHING = """
days = 100
clients = 50
seed = 7
client = "dynpin"
client_cap = "45 days"

[[population]]
name = "people"
share = 3
every = "2 days"
spread = 0.5
[[population]]
per_day = 24
rhythm = "regular"
[[population]]
traces = "visits.csv"
length = "1 day"

[[policy]]
max_age = "30 days"
backups = 2
pin = "both"
ramp = [{ max_age = "5 minutes", lasts = "1 day" }, { max_age = "1 day", lasts = "1 week" }]
[[policy]]
pin = "none"

[[event]]
kind = "rotation"
day = 10
every = "40 days"
to = "new"
announced = "5 days"
[[event]]
kind = "loss"
day = 1.5
mended = "6 hours"
[[event]]
kind = "compromise"
day = 2
keys = 2
[[event]]
kind = "ca-change"
day = 3
to = "new"
[[event]]
kind = "attack"
from = 4
until = 5
share = 0.1
shows = "stolen-key"
pins_for = "30 days"
[[event]]
kind = "mistake"
day = 6
what = "max-age"
mended = "90 minutes"
[[event]]
kind = "unpin"
day = 99

[risks]
attacks = 2
checked = "30 days"
"""


def test_a_study_with_everything_in_it(tmp_path: Path) -> None:
    (tmp_path / "visits.csv").write_text("client,second\na,5\na,7\n")
    (tmp_path / "study.toml").write_text(EVERYTHING)
    study = read_study(tmp_path / "study.toml", {"seed": 8})
    assert (study.days, study.clients, study.seed, study.client_cap, study.least_step) == (100, 50, 8, 45 * DAY, 0.01)
    people, programs, traces = study.population.groups
    assert (people.share, people.per_day, programs.per_day) == (3, 0.5, 24)
    assert traces == Traces("group 3", 1.0, DAY, ((0, 2),))
    ramp = ((300, DAY), (DAY, 7 * DAY))
    assert study.policies == (
        SitePolicy("key and CA, 30 days, 2 backups", 30 * DAY, 2, "both", ramp),
        SitePolicy("no pins", DAY, pinned="none"),
    )
    assert study.events == (
        *(Rotation(day * DAY, "new", 5 * DAY) for day in (10, 50, 90)),
        Loss(36 * HOUR, ALL, 6 * HOUR),
        Compromise(2 * DAY, 2),
        CAChange(3 * DAY, "new"),
        Attack(4 * DAY, 5 * DAY, 0.1, "stolen-key", 30 * DAY),
        Mistake(6 * DAY, "max-age", 5400),
        Unpin(99 * DAY),
    )
    assert study.risks == Risks(attacks=2, checked=30 * DAY)


POLICY = {"max_age": "30 days"}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no policy": ({}, "needs a policy"),
    "unknown key": ({"polices": []}, "did you mean policy"),
    "unknown population": ({"policy": [POLICY], "population": "people"}, "there are website"),
    "population of the wrong kind": ({"policy": [POLICY], "population": 3}, "population must be"),
    "nobody": ({"policy": [POLICY], "population": [{"every": "1 day", "share": 0}]}, "share is above 0"),
    "two rates": ({"policy": [POLICY], "population": [{"every": "1 day", "per_day": 1}]}, "give either every"),
    "too fast": ({"policy": [POLICY], "population": [{"every": "5 seconds"}]}, "a minute or more"),
    "no length": ({"policy": [{"max_age": 30}]}, 'such as "30 days"'),
    "bad length": ({"policy": [{"max_age": "a month"}]}, 'such as "30 days"'),
    "length of 0": ({"policy": [{"max_age": "0 days"}]}, "unpin event"),
    "unknown pin": ({"policy": [{**POLICY, "pin": "leaf"}]}, '"key" or "ca"'),
    "the same name twice": ({"policy": [POLICY, POLICY]}, "two policies are called '30 days, 1 backup'"),
    "unknown event": ({"policy": [POLICY], "event": [{"kind": "fire"}]}, '"rotation" or'),
    "key of another event": ({"policy": [POLICY], "event": [{"kind": "unpin", "day": 1, "until": 2}]}, "until is not"),
    "no day": ({"policy": [POLICY], "event": [{"kind": "unpin"}]}, "day is missing"),
    "after the end": ({"policy": [POLICY], "event": [{"kind": "unpin", "day": 365}]}, "after the 365 days"),
    "attack that ends first": (
        {"policy": [POLICY], "event": [{"kind": "attack", "from": 5, "until": 5}]},
        "a day after",
    ),
    "a key that was not stolen": (
        {"policy": [POLICY], "event": [{"kind": "attack", "from": 5, "until": 9, "shows": "stolen-key"}]},
        "needs a compromise",
    ),
    "share above 1": (
        {"policy": [POLICY], "event": [{"kind": "attack", "from": 5, "until": 9, "share": 20}]},
        "from 0 to 1",
    ),
    "no number": ({"policy": [POLICY], "clients": "many"}, "a whole number"),
    "not a number": ({"policy": [POLICY], "days": float("nan")}, "a number from"),
    "event that is no table": ({"policy": [POLICY], "event": [3]}, "must be a table"),
    "events that are no list": ({"policy": [POLICY], "event": 3}, r"\[\[event\]\]"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_a_study_that_is_refused_says_why(fault: str, tmp_path: Path) -> None:
    values, message = REFUSED[fault]
    with pytest.raises(InvalidStudy, match=message):
        study_of(values, tmp_path)


@pytest.mark.parametrize(
    ("text", "length"), [("30 days", 30 * DAY), ("1.5 hours", 5400), ("1 week", 7 * DAY), ("90minutes", 5400)]
)
def test_lengths_of_time(text: str, length: int) -> None:
    assert seconds(text) == length


# -- the command -----------------------------------------------------------------------------------------------------


def test_the_example_is_a_study_and_is_played(tmp_path: Path) -> None:
    example = run("--example")
    assert example.output == EXAMPLE
    (tmp_path / "study.toml").write_text(example.output)
    done = run(tmp_path / "study.toml", "--clients", "2000", "--json", "--plot", tmp_path / "study.svg")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["clients"], told["days"], told["population"]) == (2000, 365, "website")
    long, short, none = told["policies"]
    assert len(long["day"]) == len(long["locked_out"]) == len(long["fooled"]) == 366
    assert none["locked_out_client_days"] == 0 < short["locked_out_client_days"] < long["locked_out_client_days"]
    assert long["fooled_client_days"] < short["fooled_client_days"] < none["fooled_client_days"]
    assert none["visits"] == long["visits"] > long["refused_visits"] > 0
    # The same study gives the same file, and it is a picture.
    assert ET.fromstring((tmp_path / "study.svg").read_text()).tag.endswith("svg")
    again = run(tmp_path / "study.toml", "--clients", "2000", "--plot", tmp_path / "again.svg")
    assert again.exit_code == 0
    assert (tmp_path / "again.svg").read_bytes() == (tmp_path / "study.svg").read_bytes()


def test_for_people_it_is_a_table_of_80_columns(tmp_path: Path) -> None:
    picture = tmp_path / "dark.png"
    done = run(
        *("--max-age", "30 days", "--max-age", "1 day", "--backups", "2", "--population", "build-agents"),
        *("--attack", "20:30", "--share", "0.5", "--rotation", "40", "--loss", "45.5"),
        *("--clients", "200", "--days", "50", "--plot", picture, "--dark"),
    )
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].startswith("200 clients (build agents), 50 days, seed 1")
    assert max(map(len, lines)) <= 80
    assert "30 days, 2 backups" in done.stdout
    assert done.stderr == ""
    assert picture.read_bytes().startswith(b"\x89PNG")


WRONG = {
    "nothing": ([], "give a study"),
    "no such file": (["missing.toml"], "missing.toml: No such file"),
    "both": (["study.toml", "--loss", "3"], "says what is played"),
    "bad attack": (["--attack", "soon"], "such as 90:120"),
    "share alone": (["--share", "0.5"], "that of an --attack"),
    "bad picture": (["--loss", "3", "--plot", "curve.gif"], ".svg or .png"),
    "bad max-age": (["--max-age", "long"], "such as"),
    "negative": (["--loss", "-3"], "a number from 0"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_usage_is_2_and_says_what_to_give(case: str) -> None:
    arguments, message = WRONG[case]
    done = run(*arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stdout == ""


def test_a_file_that_is_no_toml(tmp_path: Path) -> None:
    for name, text in (("a.toml", b"days = "), ("b.toml", b"\xff")):
        (tmp_path / name).write_bytes(text)
        done = run(tmp_path / name)
        assert done.exit_code == 2
        assert "is no " in done.stderr


def test_without_numpy_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['numpy'] = None; from dynpin.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, "simulate", "--loss", "3"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert 'pip install "dynpin[simulate]"' in done.stderr


# -- advice ----------------------------------------------------------------------------------------------------------


def advised(population: str = "website", **risks: float) -> Advice:
    return advise(Study(PRESETS[population], (), clients=4000, risks=Risks(**risks)), processes=1)  # type: ignore[arg-type]  # numbers alone


def test_advice_weighs_losses_against_attacks() -> None:
    usual = advised()
    assert usual.pays
    assert min(usual.choices, key=lambda choice: choice.cost) == usual.best
    assert advised(attacks=5).best.max_age > usual.best.max_age
    assert advised(disasters=0.05).best.max_age < usual.best.max_age


def test_advice_on_backups() -> None:
    careless = advised(losses=5.0, thefts=0.0, disasters=0.0)
    assert careless.best.backups == 4
    rates = [choice.all_lost for choice in careless.choices if choice.max_age == careless.best.max_age]
    assert rates == sorted(rates, reverse=True)
    assert advised(thefts=1.0, losses=0.0).best.backups == 1


def test_advice_may_be_not_to_pin() -> None:
    idle = advised(attacks=0.0, thefts=0.0)
    assert not idle.pays
    assert "cost more than they save" in idle.reasons[0]


def test_advice_for_people_and_for_programs(tmp_path: Path) -> None:
    done = run("--advise", "--clients", "2000", "--plot", tmp_path / "advice.png")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("max-age ")
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "no pins" in done.stdout
    assert (tmp_path / "advice.png").read_bytes().startswith(b"\x89PNG")
    told = json.loads(run("--advise", "--clients", "2000", "--json").stdout)
    assert told["pins"] is True
    chosen = [
        choice["cost"]
        for choice in told["choices"]
        if (choice["max_age"], choice["backups"]) == (told["max_age"], told["backups"])
    ]
    assert chosen == [min(choice["cost"] for choice in told["choices"])]
    assert all(reason.endswith(".") for reason in told["reasons"])
