"""The built site: on a phone nothing is cut, no page scrolls sideways, no table tears a word, and its search works."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chromium import chromium, needs_chromium

DOCS = Path(__file__).parents[1] / "docs"
WIDER_THAN_ITS_BOX = """
    [...document.querySelectorAll("article .table-wrapper, article pre, article img")]
        .filter(e => e.scrollWidth > e.clientWidth + 1 || e.getBoundingClientRect().right > innerWidth)
        .map(e => e.outerHTML.slice(0, 200))
"""
# The words and names in tables that stand on two lines. Only a path or a digest that is longer than a line has to.
BROKEN_WORDS = r"""
    [...document.querySelectorAll("article table.docutils")].flatMap(table => {
        const broken = [];
        const walk = document.createTreeWalker(table, NodeFilter.SHOW_TEXT);
        const range = document.createRange();
        while (walk.nextNode()) {
            const longer = /[\w\/.]{40}/.test(walk.currentNode.data);
            for (const word of longer ? [] : walk.currentNode.data.matchAll(/[\w.]+/g)) {
                range.setStart(walk.currentNode, word.index);
                range.setEnd(walk.currentNode, word.index + word[0].length);
                const lines = new Set([...range.getClientRects()].map(box => Math.round(box.top)));
                if (lines.size > 1) broken.push(word[0]);
            }
        }
        return broken;
    })
"""
# The search fills its list after the page is whole, and says when it has finished.
FOUND = """
    new Promise(done => {
        const look = () => {
            const links = [...document.querySelectorAll("#search-results li a")].map(a => a.href);
            const over = /finished|did not match/.test(document.querySelector("#search-results").innerText);
            over ? done(links) : setTimeout(look, 20);
        };
        look();
    })
"""
# The pages of faults are alike.
ALIKE = 5

pytestmark = [
    needs_chromium,
    pytest.mark.skipif(
        importlib.util.find_spec("furo") is None, reason="furo is not installed: pip install --group docs"
    ),
    pytest.mark.xdist_group("chromium"),
]


@pytest.fixture(scope="module")
def site() -> Path:
    """The site where `make docs` builds it: only what has changed since then is built again."""
    built = DOCS / "_build" / "html"
    subprocess.run([sys.executable, "-m", "sphinx", "-b", "html", "-Q", str(DOCS), str(built)], check=True, timeout=300)
    return built


def test_nothing_is_cut_on_a_phone(site: Path, tmp_path: Path) -> None:
    pages = [
        page for page in sorted(site.rglob("*.html")) if "faults" not in page.parts and "_static" not in page.parts
    ]
    pages += sorted((site / "reference" / "faults").glob("*.html"))[:ALIKE]
    assert len(pages) > 50
    cut: dict[str, object] = {}
    with chromium(tmp_path / "profile") as browser:
        browser.look(width=390)
        for page in pages:
            browser.visit(page.as_uri())
            width = browser.run("document.documentElement.scrollWidth")
            boxes = browser.run(WIDER_THAN_ITS_BOX)
            words = browser.run(BROKEN_WORDS)
            if width > 390 or boxes or words:
                cut[str(page.relative_to(site))] = width, boxes, words
    assert cut == {}


def test_cards_are_read_out_as_a_table_and_paper_has_all_of_it(site: Path, tmp_path: Path) -> None:
    page = (site / "reference" / "collector-toml.html").as_uri()
    with chromium(tmp_path / "profile") as browser:
        browser.look(width=390)
        browser.visit(page)
        assert browser.run("document.querySelectorAll('table.cards').length") == 1
        roles = browser.run("[...new Set([...document.querySelectorAll('.cards, .cards *')].map(e => e.role))]")
        assert {"table", "rowgroup", "row", "cell"} <= set(roles)
        browser.look(width=718)  # A4
        browser.ask("Emulation.setScriptExecutionDisabled", value=True)
        browser.ask("Emulation.setEmulatedMedia", media="print")
        for printed in (page, (site / "how-to" / "recovery.html").as_uri()):
            browser.visit(printed)
            assert browser.run(WIDER_THAN_ITS_BOX) == []
            # It is fixed to the window, and so would stand on every sheet, over the text.
            assert browser.run("getComputedStyle(document.querySelector('.skip-to-content')).display") == "none"


@pytest.mark.parametrize(
    ("words", "page"), [("rotate", "how-to/rotate.html"), ("emergency", "how-to/rotate.html"), ("DANE", "alternatives")]
)
def test_the_search_finds_pages(words: str, page: str, site: Path, tmp_path: Path) -> None:
    with chromium(tmp_path / "profile") as browser:
        browser.visit(f"{(site / 'search.html').as_uri()}?q={words}")
        found = browser.run(FOUND)
    assert [link for link in found if page in link]
