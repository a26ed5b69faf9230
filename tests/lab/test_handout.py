"""The page of all scenarios: it needs nothing else, and can be read on a screen, a phone and paper."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dynpin.lab.handout import write_handout
from dynpin.lab.playing import Playing, play_all
from dynpin.lab.scenarios import scenarios
from dynpin.lab.timeline import Event
from tests.chromium import CHROMIUM, Chromium, chromium, needs_axe, needs_chromium
from tests.lab import docs_pictures

DOCS = docs_pictures.PICTURES.parent


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, playings: list[Playing]) -> Path:
    """The page about all scenarios."""
    file = tmp_path_factory.mktemp("lab") / "report.html"
    file.write_text(write_handout(list(scenarios().values()), playings))
    return file


@pytest.fixture(scope="module")
def short_page(tmp_path_factory: pytest.TempPathFactory, playings: list[Playing]) -> Path:
    """The page about some of them, with parts of every kind: axe takes half a minute for all of them."""
    chosen = ["super-cookie", "private-root", "demo", "keys-recovered"]
    file = tmp_path_factory.mktemp("lab") / "report.html"
    file.write_text(
        write_handout([scenarios()[name] for name in chosen], [each for each in playings if each.scenario in chosen])
    )
    return file


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


def test_agents_with_the_same_course_of_a_story_share_its_picture() -> None:
    chosen = scenarios()["hotspot"]
    playings = play_all([chosen], ["dynpin", "firefox"], processes=1)
    shared = write_handout([chosen], playings)
    # Each is drawn twice: for a screen or paper, and for a phone.
    assert shared.count('role="img"') == 2
    assert "With dynpin, firefox" in shared
    first, second = (replace(each.timeline, decisive=None) for each in playings if each.timeline)

    def beside(events: list[Event]) -> str:
        other = Playing("hotspot", "firefox", replace(second, events=events))
        return write_handout([chosen], [Playing("hotspot", "dynpin", first), other])

    assert beside(second.events).count('role="img"') == 2

    # A record belongs to its agent: with one byte more the story is shown again.
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


def test_different_outcomes_are_in_a_table_and_options_have_their_own_rows() -> None:
    chosen = scenarios()["private-root"]
    page = write_handout([chosen], play_all([chosen], ["dynpin", "chromium"], processes=1))
    assert "Where the agents differ" in page
    assert "Alice at payroll.test" in page
    assert "… private_roots=&#34;bypass&#34;" in page
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


# The smallest visible letters, in CSS pixels; those of a picture after scaling.
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
        pages = len(re.findall(rb"/Type\s*/Page\b", pdf))
        assert len(scenarios()) < pages < 2.75 * len(scenarios()), "the words of a story stand where a page has room"

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
        # Nothing inside scrolls sideways either, and pictures can be read.
        assert browser.run("[...document.querySelectorAll('*')].filter(e => e.scrollWidth > innerWidth).length") == 0
        assert browser.run(_LEAST_LETTERS) >= (9.5 if width < 700 else 11)

    @needs_axe
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_axe_finds_no_fault(self, browser: Chromium, short_page: Path, scheme: str) -> None:
        browser.look(scheme=scheme)
        browser.visit(short_page.as_uri())
        assert browser.faults() == []

    def test_on_paper_each_scenario_has_a_picture_and_its_lessons(self, browser: Chromium, page: Path) -> None:
        browser.look()
        browser.visit(page.as_uri())
        browser.ask("Emulation.setEmulatedMedia", media="print")
        try:
            # The width of A4 without its margins.
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
        # The printed page has a picture and the lessons. The rest is for the screen.
        assert pictures == [1] * len(scenarios())
        assert (lessons, tables) == (len(scenarios()), 0)
        assert grounds.strip() == "#fdfefd", "paper is white, whatever the reader's screen is"
