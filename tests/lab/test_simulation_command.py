"""`dynpin simulate`: studies read and refused, tables, JSON, pictures and advice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from typer.testing import CliRunner, Result

from dynpin.cli.app import app
from dynpin.lab.simulation import PRESETS, Risks, SitePolicy, Study, advise, curves, simulate
from dynpin.lab.simulation.advice import Advice
from dynpin.lab.simulation.study import EXAMPLE
from dynpin.lab.simulation.study_table import DAY


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["simulate", *map(str, arguments)])


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


def test_a_name_is_shown_unchanged(tmp_path: Path) -> None:
    name = r"[/] [red]$5 to $\nosuch$ :warning:"
    policy = f"[[policy]]\nmax_age = '90 days'\nname = '{name}'\n"
    (tmp_path / "study.toml").write_text(f"clients = 10\nclient_cap = '1 day'\n{policy}")
    for more in (["--plot", tmp_path / "study.svg"], ["--advise"]):
        done = run(tmp_path / "study.toml", *more)
        assert done.exit_code == 0, done.output
        assert name in done.stdout


def test_a_picture_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "folder.svg").mkdir()
    done = run("--loss", "3", "--clients", "10", "--plot", tmp_path / "folder.svg")
    assert (done.exit_code, done.stderr) == (2, f"dynpin: {tmp_path / 'folder.svg'}: a folder; name a file in it\n")
    # It is told before the study is played.
    (tmp_path / "link.svg").symlink_to(tmp_path / "nowhere" / "a.svg")
    done = run("--loss", "3", "--clients", "10", "--plot", tmp_path / "link.svg")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "link.svg: a link that leads to no file" in done.stderr


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


def test_a_study_in_which_nothing_happens_says_what_could() -> None:
    done = run("--max-age", "30 days", "--clients", "10")
    assert (done.exit_code, "--loss, --rotation and --attack" in done.stdout) == (0, True)
    assert "This study has no events" not in run("--loss", "3", "--clients", "10").stdout


WRONG = {
    "nothing": ([], "give a study"),
    "no such file": (["missing.toml"], "missing.toml: No such file"),
    "both": (["study.toml", "--loss", "3"], "describes the study"),
    "bad attack": (["--attack", "soon"], "such as 90:120"),
    "share alone": (["--share", "0.5"], "needs an --attack"),
    "bad picture": (["--loss", "3", "--plot", "curve.gif"], ".svg or .png"),
    "no folder": (["--loss", "3", "--plot", "nowhere/curve.svg"], "nowhere: no such folder"),
    "bad max-age": (["--max-age", "long"], "such as"),
    "negative loss": (["--loss", "-3"], "dynpin: --loss -3 is not understood: give a number from 0"),
    "late loss": (["--loss", "400"], "dynpin: --loss: day 400 is after the 365 days of the study: give an earlier"),
    "no day": (["--rotation", "nan"], "dynpin: --rotation nan is not understood"),
    "backwards": (["--attack", "5:3"], "dynpin: --attack: until = 3 is not understood: give a day after"),
    "too many": (["--attack", "3:5", "--share", "2"], "dynpin: --share 2 is not understood: give a number from 0 to 1"),
    "nobody": (["--loss", "3", "--clients", "0"], "dynpin: --clients 0 is not understood"),
    "at once": (["--loss", "3", "--days", "-1"], "dynpin: --days -1 is not understood"),
    "no time": (["--max-age", "0 days"], 'dynpin: --max-age "0 days" is not understood'),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_usage_is_2_and_says_what_to_give(case: str) -> None:
    arguments, message = WRONG[case]
    done = run(*arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stdout == ""


def test_an_error_in_an_option_beside_a_file_names_the_option(tmp_path: Path) -> None:
    file = tmp_path / "study.toml"
    file.write_text("days = 30\n[[policy]]\nmax_age = '1 day'\n[[event]]\nkind = 'loss'\nday = 90\n")
    assert "dynpin: --days -2 is not" in run(file, "--days", "-2").stderr
    # A value in the file is named as in the file.
    assert f"dynpin: {file}: event 1 (loss): day 90 is after the 30 days" in run(file).stderr
    file.write_text(file.read_text().replace("30", "-1"))
    assert f"dynpin: {file}: study: days = -1 is not" in run(file).stderr


def test_a_file_that_is_no_toml(tmp_path: Path) -> None:
    for name, text in (("a.toml", b"days = "), ("b.toml", b"\xff")):
        (tmp_path / name).write_bytes(text)
        done = run(tmp_path / name)
        assert done.exit_code == 2
        assert f"{name} is not " in done.stderr


def test_without_numpy_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['numpy'] = None; from dynpin.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, "simulate", "--loss", "3"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "pip install '.[simulate]'" in done.stderr


def test_a_cap_below_max_age_is_reported(tmp_path: Path) -> None:
    done = run("--max-age", "1 year", "--max-age", "60 days", "--loss", "3", "--clients", "50")
    assert done.exit_code == 0, done.output
    told = " ".join(done.stdout.split())
    assert "1 year, 1 backup: clients hold max-age to 60 days (client_cap), so these are the numbers of 60 days" in told
    assert told.count("clients hold max-age") == 1
    assert "Backup Pin" not in told
    bare = " ".join(run("--backups", "0", "--loss", "3", "--clients", "50").stdout.split())
    assert (
        "30 days, 0 backups: clients note no header without a Backup Pin (RFC 7469 §2.5), so nobody has pins." in bare
    )
    held = json.loads(run("--max-age", "1 year", "--loss", "3", "--clients", "50", "--json").stdout)["policies"][0]
    assert (held["max_age"], held["max_age_held"]) == (365 * DAY, 60 * DAY)
    # A client without a cap has other numbers, and there is no message.
    (tmp_path / "a.toml").write_text("client_cap = '2 years'\nclients = 50\n[[policy]]\nmax_age = '1 year'\n")
    assert "clients hold" not in run(tmp_path / "a.toml").stdout
    assert "clients hold max-age to 60 days" in " ".join(
        run("--advise", "--clients", "500", "--max-age", "90 days").stdout.split()
    )


def test_advice_needs_no_policy_in_the_file_and_playing_does(tmp_path: Path) -> None:
    file = tmp_path / "risks.toml"
    file.write_text("[risks]\nlosses = 0.5\n")
    done = run(file, "--advise", "--clients", "500", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["risks"]["losses"] == 0.5
    assert "needs a policy" in run(file).stderr


@pytest.mark.parametrize("count", [8, 12])
def test_policies_are_told_apart_by_colour_line_and_mark(count: int) -> None:
    policies = tuple(SitePolicy(f"{number} days", number * DAY) for number in range(1, count + 1))
    study = Study(PRESETS["website"], policies, clients=20, days=30)
    for dark in (False, True):
        figure = curves.figure(study, simulate(study, processes=1), dark=dark)
        lines = figure.axes[0].get_lines()[:count]
        seen = [(line.get_color(), str(line.get_linestyle()), str(line._unscaled_dash_pattern)) for line in lines]  # type: ignore[attr-defined]
        assert len(set(seen)) == count
        assert len({line.get_color() for line in lines}) == 8
        assert len({line.get_marker() for line in lines}) == 8
        # If curves coincide, no two have their marks at the same place.
        assert len({line.get_markevery() for line in lines}) == count


# -- stopped ---------------------------------------------------------------------------------------------------------

# Hours of work for two processes; the first tasks take only a moment.
ENDLESS = """
from dynpin.lab.simulation import PRESETS, SitePolicy, Study, simulate

study = Study(PRESETS["website"], (SitePolicy("p", 86400),), clients=10**9, days=365)
simulate(study, processes=2, progress=lambda done: print(done, flush=True))
"""


@pytest.mark.parametrize("stopped", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_the_one_that_was_stopped(stopped: signal.Signals) -> None:
    command = [sys.executable, "-c", ENDLESS]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as running:
        assert running.stdout is not None
        assert int(running.stdout.readline()) > 0
        # Ctrl-C reaches every process of the terminal; the other signals reach one.
        (os.killpg if stopped == signal.SIGINT else os.kill)(running.pid, stopped)
        # Its workers have the pipe too: this waits for all of them.
        _, said = running.communicate(timeout=300)
    assert running.returncode == -stopped
    assert said.count("Traceback") == (stopped == signal.SIGINT), "the workers say nothing of their own"


def test_a_worker_that_the_system_kills_is_reported() -> None:
    code = """
import multiprocessing, os, signal, sys, threading
from dynpin.cli import main

def kill():
    children = []
    while not children:
        try:
            children = multiprocessing.active_children()
        except RuntimeError:  # one was being added while they were listed
            pass
    os.kill(children[0].pid, signal.SIGKILL)

threading.Thread(target=kill, daemon=True).start()
sys.exit(main())
"""
    command = [sys.executable, "-c", code, "simulate", "--loss", "3", "--clients", "1000000000", "--processes", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 2
    assert done.stderr.startswith("dynpin: the system ended a process of this command")
    assert done.stderr.count("\n") == 1


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
    careless = advised(losses=5.0, thefts=0.0, backup_thefts=0.0, disasters=0.0)
    assert careless.best.backups == 4
    rates = [choice.all_lost for choice in careless.choices if choice.max_age == careless.best.max_age]
    assert rates == sorted(rates, reverse=True)
    assert advised(backup_thefts=1.0, losses=0.0).best.backups == 1


def test_advice_weighs_the_policy_that_is_there() -> None:
    policies = (SitePolicy("ours", 40 * DAY, 6), SitePolicy("too long", 365 * DAY), SitePolicy("ca", DAY, pinned="ca"))
    found = advise(Study(PRESETS["website"], policies, clients=4000), processes=1)
    assert {name: (each.max_age, each.backups) for name, each in found.yours.items()} == {
        "ours": (40 * DAY, 6),
        "too long": (60 * DAY, 1),
    }
    assert set(found.yours.values()) <= set(found.choices)
    assert [reason.split(" costs ")[0] for reason in found.reasons[1:3]] == [
        "Your policy 'ours'",
        "Your policy 'too long'",
    ]


def test_advice_may_be_not_to_pin() -> None:
    idle = advised(attacks=0.0, thefts=0.0, backup_thefts=0.0)
    assert not idle.pays
    assert "cost more than they save" in idle.reasons[0]


def test_advice_for_people_and_for_programs(tmp_path: Path) -> None:
    done = run("--advise", "--clients", "2000", "--plot", tmp_path / "advice.png")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("max-age ")
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "no pins" in done.stdout
    assert (tmp_path / "advice.png").read_bytes().startswith(b"\x89PNG")
    assert "yours" not in done.stdout
    assert "30 days   yours" in run("--advise", "--clients", "2000", "--max-age", "30 days", "--backups", "2").stdout
    told = json.loads(run("--advise", "--clients", "2000", "--json").stdout)
    assert told["pins"] is True
    assert (told["yours"], told["risks"]["attack_lasts"]) == ({}, 14 * DAY)
    chosen = [
        choice["cost"]
        for choice in told["choices"]
        if (choice["max_age"], choice["backups"]) == (told["max_age"], told["backups"])
    ]
    assert chosen == [min(choice["cost"] for choice in told["choices"])]
    assert all(reason.endswith(".") for reason in told["reasons"])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_costs_no_result(tmp_path: Path) -> None:
    plot = tmp_path / "plot.svg"
    plot.symlink_to("/dev/full")
    done = run("--loss", "3", "--clients", "50", "--plot", plot)
    assert done.exit_code == 2
    assert "locked out" in done.stdout
    assert f"{plot}: No space left on device" in done.stderr


def test_the_name_of_a_policy_does_no_harm(tmp_path: Path) -> None:
    """To a terminal, a spreadsheet, a picture, or a reader of stderr."""
    file = tmp_path / "study.toml"
    file.write_text('clients = 20\ndays = 5\n[[policy]]\nmax_age = "1 day"\nname = "=1+1 [/x] \u65e5"\n')
    assert f"'{'=1+1 [/x] 日'}," in run(file, "--csv").stdout
    done = run(file, "--plot", tmp_path / "study.svg")
    assert (done.exit_code, done.stderr) == (0, "")
    assert "=1+1 [/x]" in done.stdout
    advised = run(file, "--advise")
    assert (advised.exit_code, advised.stderr) == (0, "")
    assert "[/x]" in advised.stdout
    file.write_text(file.read_text().replace("=1+1", "\\u001b[31m"))
    done = run(file)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "policy 1: name = " in done.stderr
    assert "without control characters" in done.stderr
