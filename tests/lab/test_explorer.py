"""The explorer in a real browser: each step by mouse, keyboard and link; nothing leaves the page."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dynpin.lab.explorer import write_explorer
from dynpin.lab.playing import Playing, play_all
from dynpin.lab.scenarios import scenarios
from tests.chromium import Chromium, chromium, needs_axe, needs_chromium

pytestmark = [
    needs_chromium,
    pytest.mark.xdist_group("chromium"),
]

PLAYED = ("hotspot", "super-cookie", "private-root")
HOSTILE = "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"


@pytest.fixture(scope="module")
def playings() -> list[Playing]:
    return play_all([scenarios()[name] for name in PLAYED], ["dynpin", "chromium"], processes=1)


@pytest.fixture(scope="module")
def page(playings: list[Playing], tmp_path_factory: pytest.TempPathFactory) -> Path:
    chosen = [scenarios()[name] for name in PLAYED]
    chosen[1] = replace(chosen[1], story=HOSTILE, title=HOSTILE)
    file = tmp_path_factory.mktemp("lab") / "a b-explorer.html"
    file.write_text(write_explorer(chosen, playings, handout="a%20b.html"), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def at(browser: Chromium, page: Path) -> Chromium:
    """The browser at the page, with a fresh state."""
    browser.look()
    browser.visit("about:blank")
    browser.visit(page.as_uri())
    return browser


def follow(browser: Chromium, fragment: str) -> None:
    """Follow a link to an event, and wait until the page has reached it; it may be there already."""
    browser.run(
        f"""new Promise(done => {{
            if (location.hash === {json.dumps(f"#{fragment}")}) return done(0);
            addEventListener("hashchange", () => done(0), {{once: true}});
            location.hash = {json.dumps(fragment)};
        }})"""
    )


def place(browser: Chromium) -> str:
    return str(browser.run("document.querySelector('#place').textContent"))


def press(browser: Chromium, key: str) -> None:
    browser.run(f"document.body.dispatchEvent(new KeyboardEvent('keydown', {{key: {key!r}, bubbles: true}}))")


def test_every_step_is_told_in_the_words_of_the_timeline(at: Chromium, playings: list[Playing]) -> None:
    hotspot = next(each for each in playings if (each.scenario, each.agent) == ("hotspot", "dynpin"))
    assert hotspot.timeline is not None
    count = int(at.run("document.querySelectorAll('#list li').length"))
    assert count == len(hotspot.timeline.events)
    listed = str(at.run("document.querySelector('#list').innerText"))
    # A teacher who asks for a prediction folds the list, which has the outcomes, and it stays so at the next step.
    at.run("document.querySelector('#steps').click(); document.querySelector('#forward').click()")
    assert at.run("document.querySelector('#list').checkVisibility()") is False
    for event in hotspot.timeline.visits:
        assert f"{event.actor} " in listed
    follow(at, "story=hotspot&agent=dynpin&step=6")
    shown = str(at.run("document.querySelector('#boards').innerText"))
    # Alice refuses: the attacker has read nothing, and her store has not changed.
    assert "nothing was sent" in shown
    assert "protected" in shown
    assert "bank.test key 1" in shown


def test_bytes_headers_and_stores_are_those_of_the_moment(at: Chromium) -> None:
    follow(at, "story=hotspot&agent=dynpin&step=1")
    first = str(at.run("document.querySelector('#boards').innerText"))
    assert "holds no pins" in first
    assert "max-age=" in first  # the header that the site sends from now on
    assert "has read" not in first
    follow(at, "story=hotspot&agent=dynpin&step=2")
    second = str(at.run("document.querySelector('#boards').innerText"))
    assert "pins noted" in second
    assert "Public-Key-Pins: pin-sha256=" in second
    assert "bytes of requests" in second


def test_it_is_stepped_through_by_buttons_and_keys(at: Chromium) -> None:
    assert place(at).startswith("Step 1 of ")
    at.run("document.querySelector('#forward').click()")
    assert place(at).startswith("Step 2 of ")
    press(at, "ArrowRight")
    assert place(at).startswith("Step 3 of ")
    press(at, "ArrowLeft")
    press(at, "End")
    total = place(at).split(" of ")[1].split(" ")[0]
    assert place(at).startswith(f"Step {total} of {total}")
    assert at.run("document.querySelector('#forward').disabled") is True
    press(at, "Home")
    assert place(at).startswith("Step 1 of ")
    at.run("document.querySelector('#play').click()")
    assert at.run("document.querySelector('#play').getAttribute('aria-pressed')") == "true"
    press(at, "ArrowRight")  # an action of the user stops the automatic play
    assert at.run("document.querySelector('#play').getAttribute('aria-pressed')") == "false"


def test_a_link_leads_to_its_moment_and_nonsense_to_the_first(at: Chromium) -> None:
    follow(at, "story=private-root&agent=chromium&beside=dynpin&step=3")
    assert place(at).startswith("Step 3 of ")
    link = str(at.run("document.querySelector('#link').getAttribute('href')"))
    assert link == "#story=private-root&agent=chromium&beside=dynpin&step=3"
    assert len(at.run("[...document.querySelectorAll('.board h2')].map(e => e.textContent)")) == 2
    follow(at, "story=no-such&agent=%3Cb%3E&step=-7")
    assert place(at).startswith("Step 1 of ")
    assert at.complaints() == []


def test_it_leads_to_the_chapter_of_the_story_in_the_handout(at: Chromium) -> None:
    for story in PLAYED:
        follow(at, f"story={story}&agent=dynpin")
        assert at.run("document.querySelector('#chapter').getAttribute('href')") == f"a%20b.html#{story}"


def test_two_agents_stand_side_by_side_and_the_first_difference_is_marked(at: Chromium) -> None:
    """With a private root Chromium notes no pins, and dynpin does: that is the first difference."""
    follow(at, "story=private-root&agent=dynpin&beside=chromium&step=1")
    at.run("document.querySelector('#difference').click()")
    dynpin, chromium_model = at.run("[...document.querySelectorAll('.board')].map(board => board.innerText)")
    assert "The first difference is here." in dynpin
    assert "pins noted" in dynpin
    assert "pins noted" not in chromium_model
    assert at.run("document.querySelectorAll('#list .mark').length") == 1


def test_days_never_go_backwards_where_two_agents_differ(
    browser: Chromium, playings: list[Playing], tmp_path: Path
) -> None:
    """Of one agent every other event is left out, of the other one the rest: no row has both."""
    whole = next(each.timeline for each in playings if (each.scenario, each.agent) == ("hotspot", "dynpin"))
    assert whole is not None
    apart = [replace(event, at=86_400.0 * number) for number, event in enumerate(whole.events)]
    file = tmp_path / "explorer.html"
    sides = [
        Playing("hotspot", agent, replace(whole, events=apart[number::2]))
        for number, agent in enumerate(("chromium", "dynpin"))
    ]
    file.write_text(write_explorer([scenarios()["hotspot"]], sides), encoding="utf-8")
    browser.visit(f"{file.as_uri()}#story=hotspot&agent=chromium&beside=dynpin")
    shown = browser.run("[...document.querySelectorAll('#list li')].map(line => line.innerText)")
    days = [int(day) for line in shown for day in re.findall(r"day (\d+)", line)[:1]]
    assert len(days) >= len(apart) - 1
    assert days == sorted(days)


def test_hostile_text_is_text_and_nothing_leaves_the_page(at: Chromium) -> None:
    follow(at, "story=super-cookie&agent=dynpin&step=1")
    assert HOSTILE in str(at.run("document.querySelector('#about').textContent"))
    assert at.run("document.title") == "Public key pinning, step by step"
    assert at.complaints() == []
    assert at.requests() == []
    # The page's policy blocks code that might be injected.
    at.run("document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.1:9/x'})), 0")
    assert any("Content Security Policy" in each for each in at.complaints())


def test_without_scripts_it_leads_to_the_handout(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "<noscript>" in text
    assert 'href="a%20b.html"' in text
    assert "<b>" not in text.partition('id="data">')[2].partition("</script>")[0]


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_scrolls_sideways(at: Chromium, width: int) -> None:
    at.look(width=width)
    for story in PLAYED:
        follow(at, f"story={story}&agent=dynpin&beside=chromium&step=2")
        assert at.run("document.documentElement.scrollWidth") <= width, story


@needs_axe
@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390)])
def test_axe_finds_no_fault(at: Chromium, scheme: str, width: int) -> None:
    at.look(width=width, scheme=scheme)
    follow(at, "story=private-root&agent=dynpin&beside=chromium&step=5")
    assert at.faults() == []
