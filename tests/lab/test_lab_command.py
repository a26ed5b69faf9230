"""`dynpin lab`: scenarios listed and played, their timelines in words, as JSON and as pictures, and the page of all."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
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
from dynpin.lab.timeline import Event
from tests.lab import docs_pictures
from tests.middleware.collector import chromium as browsers
from tests.middleware.collector.chromium import CHROMIUM, Chromium, chromium

DOCS = docs_pictures.PICTURES.parent
AXE = Path(browsers.__file__).with_name("node_modules") / "axe-core" / "axe.min.js"
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt-get install chromium")


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


# -- all ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, playings: list[Playing]) -> Path:
    """The page about them."""
    file = tmp_path_factory.mktemp("lab") / "report.html"
    file.write_text(write_handout(list(scenarios().values()), playings))
    return file


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
        ["a-explorer.html:", "the", "same,", "to", "be", "stepped", "through", "in", "a", "browser"],
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


def test_the_table_of_the_docs_is_what_comes_out(playings: list[Playing]) -> None:
    text = (DOCS / "how-to" / "lab.md").read_text()
    agents = ["dynpin", "chromium", "firefox", "wget2"]
    assert f"| | Story | {' | '.join(agents)} |" in text
    rows = re.findall(r"^\| (\d+) \| `(.+)` \| (.*) \| (.*) \| (.*) \| (.*) \|$", text, re.MULTILINE)
    assert [(int(number), name) for number, name, *_ in rows] == [
        (each.number, each.name) for each in scenarios().values()
    ]
    found = {(each.scenario, each.agent): each for each in playings}
    for _, name, *cells in rows:
        for agent, cell in zip(agents, cells, strict=True):
            each = found.get((name, agent))
            if each is not None and each.missing:
                continue
            outcome = "" if each is None or each.outcome is None else each.outcome.replace("-", " ")
            differs = outcome not in ("", (found[name, "dynpin"].outcome or "").replace("-", " "))
            assert cell == (f"**{outcome}**" if differs else outcome), f"{name} with {agent}"
    # What a user opts in to, and the second ending, under their story.
    told: list[tuple[str, str, list[str]]] = []
    story = ""
    for line in text.splitlines():
        if row := re.match(r"\| \d+ \| `(.+?)` \|", line):
            story = row[1]
        elif row := re.match(r"\| \| … (.+?) \| (.*) \|$", line):
            told.append((story, row[1].strip("`"), row[2].split(" | ")))
    expected = {
        (name, option): [found[name, agent].options.get(option) if (name, agent) in found else None for agent in agents]
        for name, agent in found
        for option in found[name, agent].options
    }
    assert {(name, option) for name, option, _ in told} == set(expected)
    for name, option, cells in told:
        for agent, cell, of in zip(agents, cells, expected[name, option], strict=True):
            each = found.get((name, agent))
            if each is None or not each.missing:
                assert cell.strip() == (of or "").replace("-", " "), f"{name}, {option}, with {agent}"


@pytest.mark.parametrize("name", docs_pictures.NAMES)
def test_the_pictures_of_the_docs_are_what_comes_out(name: str) -> None:
    text = (DOCS / "how-to" / "lab.md").read_text()
    for file, drawn in docs_pictures.pictures(name):
        assert text.count(f"_static/{file.name}") == 1
        # How long a request is depends on the HTTP library's version.
        committed, now = (re.sub(rb"[0-9]+ bytes", b"N bytes", each) for each in (file.read_bytes(), drawn))
        assert committed == now, f"{file.name} is not up to date: python -m tests.lab.docs_pictures"


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.add(tag)
        self.ids += filter(None, [given.get("id")])
        self.targets += filter(None, [given.get("href")])


def test_the_page_has_a_section_for_each_scenario_and_needs_nothing_else(page: Path) -> None:
    text = page.read_text()
    found = _Links()
    found.feed(text)
    assert len(found.ids) == len(set(found.ids))
    assert not found.tags & {"script", "link", "img", "iframe", "object", "use"}
    assert not re.search(r"url\(|@import", text)
    inside = [target.removeprefix("#") for target in found.targets if target.startswith("#")]
    assert set(inside) <= set(found.ids)
    assert set(scenarios()) <= set(inside)
    assert {target for target in found.targets if not target.startswith("#")} == {
        "https://www.rfc-editor.org/rfc/rfc7469"
    }
    for each in scenarios().values():
        claimed = [words for claim in each.browsers for words in (claim.text, claim.source)]
        for words in (each.story, each.rfc, *claimed, each.dynpin, *each.sources):
            assert re.sub("`([^`]+)`", r"<code>\1</code>", _escaped(words)) in text
    assert "`" not in text
    assert "60 days" in text
    assert not re.search(r"\b[0-9]{3,} seconds", text)


def _escaped(text: str) -> str:
    for plain, written in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("'", "&#39;"), ('"', "&#34;")):
        text = text.replace(plain, written)
    return text


def test_agents_with_which_a_story_goes_alike_share_its_picture() -> None:
    chosen = scenarios()["hotspot"]
    playings = play_all([chosen], ["dynpin", "firefox"], processes=1)
    shared = write_handout([chosen], playings)
    # Each is drawn twice: for a screen or paper, and for a telephone.
    assert shared.count('role="img"') == 2
    assert "With dynpin, firefox" in shared
    first, second = (replace(each.timeline, decisive=None) for each in playings if each.timeline)

    def beside(events: list[Event]) -> str:
        other = Playing("hotspot", "firefox", replace(second, events=events))
        return write_handout([chosen], [Playing("hotspot", "dynpin", first), other])

    assert beside(second.events).count('role="img"') == 2

    # Whatever stands in a record is that agent's own: one byte more, and the story is told anew.
    for changed in (
        [replace(event, outcome=event.outcome and "failed") for event in second.events],
        [replace(event, noting=None) for event in second.events],
        [replace(event, reason=f"{event.reason}!") for event in second.events],
        [replace(event, bytes_read=event.bytes_read + 1) for event in second.events],
        [replace(event, held={}) for event in second.events],
    ):
        page = beside(changed)
        assert page.count('role="img"') == 4
        assert page.count("<summary>With ") == 2


def test_what_goes_otherwise_with_another_agent_stands_in_a_table_and_opt_ins_in_rows_of_their_own() -> None:
    chosen = scenarios()["private-root"]
    page = write_handout([chosen], play_all([chosen], ["dynpin", "chromium"], processes=1))
    assert "Where the agents differ" in page
    assert "Alice at payroll.test" in page
    assert "… when opted in to: private_roots=&#34;bypass&#34;" in page
    alike = scenarios()["hotspot"]
    page = write_handout([alike], play_all([alike], ["dynpin", "chromium"], processes=1))
    assert "Where the agents differ" not in page


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


_OVERLAPS = """
[...document.querySelectorAll('svg')].flatMap(svg => {
  const texts = [...svg.querySelectorAll('text')].map(text => [text.textContent, text.getBBox()]);
  return texts.flatMap(([one, a], i) => texts.slice(i + 1).filter(([other, b]) =>
    a.x < b.x + b.width && b.x < a.x + a.width && a.y + 0.12 * a.height < b.y + 0.88 * b.height
    && b.y + 0.12 * b.height < a.y + 0.88 * a.height).map(([other]) => `${one} / ${other}`));
})
"""


# The smallest letters that are seen, in CSS pixels; those of a picture as it is scaled.
_LEAST_LETTERS = """Math.min(...[...document.querySelectorAll('*')].filter(e => e.checkVisibility()
    && [...e.childNodes].some(n => n.nodeType == 3 && n.textContent.trim())
    && !['STYLE', 'TITLE'].includes(e.tagName)).map(e => {
  const svg = e.closest('svg'), size = parseFloat(getComputedStyle(e).fontSize)
  // The letters in the sign of a key are its colour's companions.
  if (svg && e.getAttribute('text-anchor') == 'middle') return 99
  const scale = svg ? svg.getBoundingClientRect().width / svg.viewBox.baseVal.width : 1
  return svg ? parseFloat(e.getAttribute('font-size')) * scale : size
}))"""


@needs_chromium
@pytest.mark.xdist_group("chromium")
class TestInABrowser:
    """The page as Chromium renders it."""

    def test_the_command_of_the_docs_prints_it_as_pdf(self, page: Path, tmp_path: Path) -> None:
        said = re.search(r"^`chromium (--headless .*) pinning\.html`$", (DOCS / "how-to/notebook.md").read_text(), re.M)
        assert said is not None
        # Without a sandbox, since root runs these tests in some places.
        command = [str(CHROMIUM), "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
        subprocess.run([*command, *said[1].split(), page], cwd=tmp_path, check=True, capture_output=True)
        pdf = (tmp_path / "pinning.pdf").read_bytes()
        assert pdf.startswith(b"%PDF-")
        assert len(re.findall(rb"/Type\s*/Page\b", pdf)) > len(scenarios())

    def test_no_two_texts_of_a_picture_meet(self, browser: Chromium, page: Path) -> None:
        browser.look()
        browser.visit(page.as_uri())
        assert browser.run("document.querySelectorAll('svg').length") >= len(scenarios())
        assert browser.run(_OVERLAPS) == []

    def test_nothing_runs_and_nothing_is_asked_for(self, browser: Chromium, page: Path) -> None:
        browser.visit(page.as_uri())
        assert browser.complaints() == []
        assert browser.run("performance.getEntriesByType('resource').length") == 0
        assert browser.requests() == []

    @pytest.mark.parametrize("width", [360, 768])
    def test_it_is_no_wider_than_a_phone(self, browser: Chromium, page: Path, width: int) -> None:
        browser.look(width=width)
        browser.visit(page.as_uri())
        assert browser.run("document.documentElement.scrollWidth") <= width
        # Nothing scrolls sideways inside of it either, and pictures can be read.
        assert browser.run("[...document.querySelectorAll('*')].filter(e => e.scrollWidth > innerWidth).length") == 0
        assert browser.run(_LEAST_LETTERS) >= (9.5 if width < 700 else 11)

    @pytest.mark.skipif(
        not AXE.exists(), reason="axe-core is not installed: npm install --prefix tests/middleware/collector"
    )
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_axe_finds_no_fault(self, browser: Chromium, page: Path, scheme: str) -> None:
        browser.look(scheme=scheme)
        browser.visit(page.as_uri())
        browser.run(AXE.read_text() + "; 0")
        found = json.loads(browser.run("axe.run().then(r => JSON.stringify(r.violations))"))
        assert [(one["id"], one["impact"], [node["html"] for node in one["nodes"]][:3]) for one in found] == []

    def test_on_paper_each_scenario_begins_a_page(self, browser: Chromium, page: Path) -> None:
        browser.look()
        browser.visit(page.as_uri())
        browser.ask("Emulation.setEmulatedMedia", media="print")
        try:
            breaks = browser.run("[...document.querySelectorAll('.chapter')].map(e => getComputedStyle(e).breakBefore)")
            # As wide as A4 within its margins.
            browser.look(width=718)
            browser.ask("Emulation.setEmulatedMedia", media="print")
            least = browser.run(_LEAST_LETTERS)
            grounds = browser.run("getComputedStyle(document.body).getPropertyValue('--picture-ground')")
            pictures = browser.run(
                "[...document.querySelectorAll('.chapter')]"
                ".map(e => [...e.querySelectorAll('.picture')].filter(p => p.checkVisibility()).length)"
            )
            lessons, tables = (
                browser.run(f"[...document.querySelectorAll('{each}')].filter(p => p.checkVisibility()).length")
                for each in (".chapter .lessons", ".chapter table, .asserted")
            )
        finally:
            browser.ask("Emulation.setEmulatedMedia", media="")
        assert least * 72 / 96 >= 9, "nine points at least, pictures too"
        assert breaks == ["page"] * len(scenarios())
        # To hand out: a picture and the lessons. The rest is for the screen.
        assert pictures == [1] * len(scenarios())
        assert (lessons, tables) == (len(scenarios()), 0)
        assert grounds.strip() == "#fdfefd", "paper is white, whatever the reader's screen is"
