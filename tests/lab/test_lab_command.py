"""`dynpin lab`: scenarios listed and played, their timelines in words, as JSON and as pictures, and the page of all."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from dynpin.cli.app import app
from dynpin.cli.lab_timeline import show_table
from dynpin.lab.handout import write_handout
from dynpin.lab.playing import Playing, play_all
from dynpin.lab.scenarios import scenario, scenarios
from dynpin.lab.stage import Stage


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["lab", *map(str, arguments)])


# -- list --------------------------------------------------------------------------------------------------------------


def test_the_list_names_every_scenario_in_order() -> None:
    lines = run("list").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    shown = [re.match(r" *(\d+) +(\S+) ", line) for line in lines[: len(scenarios())]]
    assert [(int(found[1]), found[2]) for found in shown if found] == [
        (each.number, each.name) for each in scenarios().values()
    ]
    told = json.loads(run("list", "--json").stdout)
    assert [each["name"] for each in told] == list(scenarios())
    assert all(each["story"] and each["rfc"] and each["browsers"] and each["dynpin"] for each in told)


# -- run ---------------------------------------------------------------------------------------------------------------


def test_a_scenario_for_people_fits_a_terminal() -> None:
    done = run("run", "hotspot")
    assert done.exit_code == 0, done.output
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith(" 1  The fake Wi-Fi hotspot")
    assert "  With dynpin" in lines
    shown = done.stdout
    assert re.search(r"day 1  ·  Mallory answers bank.test", shown)
    assert re.search(r"→  Bob visits bank.test and is fooled: Mallory reads \d+ bytes", shown)
    assert re.search(r"⊣  Alice refuses.*\n.*\n +bank.test shows none of its pinned keys \(§2.6\)", shown)
    assert "✓ Mallory has read nothing of Alice" in shown
    assert "✗" not in shown
    assert done.stderr == ""


def test_a_number_names_a_scenario_too() -> None:
    done = run("run", "1", "--agent", "chromium")
    assert "The fake Wi-Fi hotspot" in done.stdout
    assert "With chromium" in done.stdout


def test_the_json_of_a_scenario_is_its_record() -> None:
    done = run("run", "hotspot", "--json", "--agent", "dynpin", "--agent", "firefox")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["number"], told["name"]) == (1, "hotspot")
    first, second = told["playings"]
    assert (first["agent"], first["ok"], first["outcome"]) == ("dynpin", True, "protected")
    assert second["agent"] == "firefox"
    timeline = first["timeline"]
    pins = {key["name"]: key["pin"] for key in timeline["keys"]}
    noted = next(event for event in timeline["events"] if event["noting"] == "noted")
    assert noted["pinned"] == [pins["bank.test key 1"], pins["bank.test key 2"]]
    (held,) = noted["held"]["Alice"]
    assert (held["pins"], held["until"]) == (noted["pinned"], 30 * 86_400)
    assert noted["shown"][0] == pins["bank.test key 1"]
    decisive = timeline["events"][timeline["decisive"]]
    assert (decisive["outcome"], decisive["bytes_read"], decisive["section"]) == ("protected", 0, "2.6")
    assert all(remark["holds"] for remark in timeline["remarks"])


def test_a_picture_of_a_scenario(tmp_path: Path) -> None:
    light, dark, png, pdf = (tmp_path / name for name in ("light.svg", "dark.svg", "light.PNG", "light.pdf"))
    for file, more in ((light, []), (dark, ["--dark"]), (png, []), (pdf, [])):
        done = run("run", "hotspot", "--picture", file, *more)
        assert done.exit_code == 0, done.output
    assert ET.fromstring(light.read_text()).tag.endswith("svg")
    assert light.read_text() != dark.read_text()
    assert png.read_bytes().startswith(b"\x89PNG")
    assert pdf.read_bytes().startswith(b"%PDF-")


WRONG = {
    "neither": ([], "give the NAME of a scenario"),
    "both": (["hotspot", "--all"], "give the NAME of a scenario"),
    "unknown scenario": (["hotpot"], "no scenario 'hotpot'; dynpin lab list"),
    "unknown agent": (["hotspot", "--agent", "netscape"], "no user agent 'netscape'; there are dynpin"),
    "bad picture": (["hotspot", "--picture", "a.gif"], ".svg, .pdf or .png"),
    "a picture nowhere": (["hotspot", "--picture", "no/such/folder/a.svg"], "no such folder"),
    "a picture of all": (["--all", "--picture", "a.svg"], "--picture draws one scenario"),
    "a picture of two": (["hotspot", "--agent", "dynpin", "--agent", "firefox", "--picture", "a.svg"], "one --agent"),
    "a page of one": (["hotspot", "--html", "a.html"], "--html goes with --all"),
    "nowhere": (["--all", "--html", "no/such/folder/a.html"], "no such folder"),
    "a page that is none": (["--all", "--html", "a.pdf"], "give it a name that ends in .html"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_usage_is_2_and_says_what_to_give(case: str) -> None:
    arguments, message = WRONG[case]
    done = run("run", *arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stdout == ""


def test_a_report_of_nothing_replaces_no_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.html").write_text("of yesterday")
    done = run("report", "a.html", "--scenario", "session-resumption", "--agent", "chromium")
    assert done.exit_code == 2
    assert "session-resumption is played with dynpin, wget2" in done.stderr
    assert Path("a.html").read_text() == "of yesterday"
    assert [each.name for each in tmp_path.iterdir()] == ["a.html"]


@pytest.mark.parametrize(
    ("file", "message"),
    [("foo.pdf", "foo.pdf: the report is a page"), ("no/a.html", "no: no such folder; make it first")],
)
def test_a_report_is_a_page_in_a_folder_that_is_there(
    file: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("report", file)
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        ("httpx", ["list"], "pip install '.[lab]'"),
        # A scenario of the list needs it, and no module before.
        ("uvicorn", ["list"], "pip install '.[lab]'"),
        ("matplotlib", ["run", "hotspot", "--picture", "a.png"], "pip install '.[lab,simulate]'"),
    ],
)
def test_without_a_library_it_says_what_to_install(
    module: str, arguments: list[str], message: str, tmp_path: Path
) -> None:
    code = f"import sys; sys.modules[{module!r}] = None; from dynpin.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, "lab", *arguments], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


# -- what fails --------------------------------------------------------------------------------------------------------


@pytest.fixture
def wrong(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A scenario that asserts what is not so."""
    registered = scenario.__globals__["_registered"]
    monkeypatch.setattr("dynpin.lab.scenarios._registered", dict(scenarios()))

    @scenario(
        number=99,
        name="wrong",
        title="It <is> not so",
        story="A story.",
        rfc="§2.",
        dynpin="<b>Nothing</b> & more.",
        agents=("dynpin",),
    )
    def wrong(stage: Stage) -> None:
        bank = stage.site("bank.test", stage.authority("Honest CA"))
        stage.expect(stage.client("Alice").visits(bank), "locked-out")

    yield "wrong"
    assert "wrong" not in registered


def test_what_does_not_hold_is_1_and_named(wrong: str) -> None:
    done = run("run", wrong)
    assert done.exit_code == 1
    assert "✗ Alice at bank.test, day 0: locked-out, but was served" in " ".join(done.stdout.split())
    assert "does not hold: wrong with dynpin" in done.stderr
    told = json.loads(run("run", wrong, "--json").stdout)
    assert (told["playings"][0]["ok"], told["playings"][0]["outcome"]) == (False, "served")


def test_the_page_says_what_does_not_hold(wrong: str) -> None:
    chosen = scenarios()[wrong]
    page = write_handout([chosen], play_all([chosen], processes=1))
    assert "not as asserted" in page
    assert "✗ not so:" in page
    assert "It &lt;is&gt; not so" in page
    assert "<b>Nothing" not in page


def test_an_agent_that_is_not_here_is_said_to_be_missing() -> None:
    absent = Playing("hotspot", "wget2", None, "wget2 is not installed")
    assert absent.ok
    assert (absent.outcome, absent.to_dict()["missing"]) == (None, "wget2 is not installed")
    page = write_handout([scenarios()["hotspot"]], [absent])
    assert "not here" in page
    assert "wget2 is not installed." in page


def test_the_report_is_written_and_told_in_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = {name: scenarios()[name] for name in ("hotspot", "private-root", "session-resumption")}
    monkeypatch.setattr("dynpin.lab.scenarios._registered", few)
    monkeypatch.chdir(tmp_path)
    done = run("report", "a.html", "--agent", "dynpin", "--agent", "chromium", "--processes", "1")
    assert done.exit_code == 0, done.output
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["scenario", "dynpin", "chromium"],
        ["1", "hotspot", "⊣", "protected", "⊣", "protected"],
        ["17", "private-root", "⊣", "protected", "→", "fooled"],
        ["·", 'private_roots="bypass"', "→", "fooled"],
        ["23", "session-resumption", "⊣", "protected"],
        [],
        ["5", "playings;", "all", "went", "as", "asserted."],
        [],
        ["a.html:", "5", "playings", "of", "3", "scenarios"],
        ["a-explorer.html:", "the", "same,", "step", "by", "step", "in", "a", "browser"],
    ]
    assert "with dynpin, chromium" in Path("a.html").read_text()
    # Each leads to the other, story by story.
    assert 'href="a.html"' in Path("a-explorer.html").read_text()
    for name in few:
        assert f'href="a-explorer.html#story={name}"' in Path("a.html").read_text()
    told = run("run", "--all", "--json", "--agent", "chromium", "--processes", "1", "--html", "b.html")
    assert [(each["scenario"], each["outcome"]) for each in json.loads(told.stdout)] == [
        ("hotspot", "protected"),
        ("private-root", "fooled"),
    ]
    assert "b.html: 2 playings" in told.stderr
    assert "b-explorer.html: the same" in told.stderr
    assert "with chromium" in Path("b.html").read_text()
    assert 'href="b-explorer.html"' in Path("b.html").read_text()
    assert 'href="b.html"' in Path("b-explorer.html").read_text()


def test_the_table_of_all_fits_a_terminal(playings: list[Playing]) -> None:
    console = Console(width=80, file=io.StringIO(), highlight=False)
    show_table(console, list(scenarios().values()), playings)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    options = sum(len(each.options) for each in playings if each.agent == "dynpin")
    assert len(lines) == 1 + len(scenarios()) + options + 2
