"""Texts, files and colours of the pictures: the same story gives the same file."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import matplotlib as mpl
import pytest
from fontTools.ttLib import TTFont  # type: ignore[import-untyped] # comes with matplotlib, without types
from hypothesis import given, settings
from hypothesis import strategies as st

from dynpin.lab.picture import draw, draw_inline
from dynpin.lab.picture.cast import Cast
from dynpin.lab.picture.glyphs import FORMS
from dynpin.lab.picture.layout import LEAST_WIDTH, WIDTH, lay_out
from dynpin.lab.picture.letters import BOLD, REGULAR
from dynpin.lab.picture.paper import DARK, KEYS, LIGHT, key_color
from dynpin.lab.picture.scene import Box, Scene, Text, clipped, width, wrapped
from dynpin.lab.playing import Playing
from dynpin.lab.scenarios import play, scenarios
from dynpin.lab.timeline import Actor, Event, Held, Key, Role, Timeline

from .picture_stories import DAY, HOTSPOT, pin, story, visit

SCENARIOS = list(scenarios())


def timeline_of(name: str, played: dict[tuple[str, str], Playing]) -> Timeline:
    timeline = played[name, "dynpin"].timeline
    assert timeline is not None
    return timeline


def overlaps(scene: Scene) -> list[tuple[str, str]]:
    return [(one.text, other.text) for one, other in itertools.combinations(scene.texts, 2) if meet(one.box, other.box)]


def meet(one: Box, other: Box) -> bool:
    return one.left < other.right and other.left < one.right and one.top < other.bottom and other.top < one.bottom


def outside(scene: Scene) -> list[str]:
    page = (0, 0, scene.width, scene.height)
    return [
        text.text
        for text in scene.texts
        if text.box.left < page[0] or text.box.top < page[1] or text.box.right > page[2] or text.box.bottom > page[3]
    ]


# -- texts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("face", "widths"), [("DejaVuSans", REGULAR), ("DejaVuSans-Bold", BOLD)])
def test_the_letters_are_as_wide_as_those_of_the_font(face: str, widths: dict[str, int]) -> None:
    font = TTFont(Path(mpl.get_data_path()) / "fonts" / "ttf" / f"{face}.ttf")
    glyphs, advances = font.getBestCmap(), font["hmtx"]
    found = {letter: round(advances[glyphs[ord(letter)]][0] * 1000 / font["head"].unitsPerEm) for letter in widths}
    assert found == widths
    assert set(map(chr, range(32, 127))) <= set(widths)


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"])), st.floats(30, 400))
def test_wrapping_loses_no_letter_and_keeps_to_its_room(text: str, room: float) -> None:
    lines = wrapped(text, 12, room)
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert all(width(line, 12) <= room for line in lines)
    assert width(clipped(text, 12, room), 12) <= room


@pytest.mark.parametrize("name", SCENARIOS)
def test_no_two_texts_of_a_scenario_meet(name: str, played: dict[tuple[str, str], Playing]) -> None:
    scene = lay_out(timeline_of(name, played), scenarios()[name].title)
    assert overlaps(scene) == []
    assert outside(scene) == []


_NAMES = st.sampled_from(
    ["Alice", "bank.test", "Mallory", "Honest CA", "a.very-long-name.of-some-service.internal.test"]
)


@st.composite
def timelines(draw: st.DrawFn) -> Timeline:
    """Timelines that no author would write: any names, any times, unknown pins, many hosts."""
    roles: tuple[Role, ...] = ("authority", "site", "attacker", "client")
    names = draw(st.lists(_NAMES, min_size=1, unique=True))
    actors = [Actor(name, draw(st.sampled_from(roles)), draw(st.text("ab ", max_size=60))) for name in names]
    pins = [pin(str(number)) for number in range(7)]
    keys = [Key(f"key {number}", one, draw(_NAMES)) for number, one in enumerate(pins[:5])]
    chosen = st.lists(st.sampled_from(pins), max_size=6, unique=True).map(tuple)
    entries = st.builds(
        Held,
        host=st.sampled_from([f"{number}.test" for number in range(6)]),
        pins=chosen,
        include_subdomains=st.booleans(),
        until=st.none() | st.sampled_from([2 * DAY, 100 * DAY]),
        static=st.booleans(),
    )
    events = st.builds(
        Event,
        at=st.sampled_from([0.0, 30.0, 3600.0, 1.5 * DAY, 30 * DAY, 400 * DAY]),
        actor=st.sampled_from(names),
        text=st.text("abcdefgh ", max_size=120) | st.just("x" * 90),
        target=st.none() | st.sampled_from([*names, "nobody"]),
        outcome=st.none() | st.sampled_from(list(FORMS)),
        host=st.none() | st.sampled_from([f"{number}.test" for number in range(6)]),
        shown=chosen,
        pinned=chosen,
        max_age=st.none() | st.sampled_from([0, 3600, 86_400 * 30]),
        include_subdomains=st.booleans(),
        report=st.none() | st.sampled_from(["taken", "failed"]),
        leaves=st.booleans(),
        held=st.dictionaries(st.sampled_from(names), st.lists(entries, max_size=5).map(tuple), max_size=2),
        noting=st.none() | st.sampled_from(["noted", "updated", "removed", "ignored"]),
        bytes_read=st.integers(0, 10**9),
    )
    told = sorted(draw(st.lists(events, max_size=14)), key=lambda event: event.at)
    return Timeline("made-up", "dynpin", actors, keys, told)


@settings(deadline=None)
@given(timelines(), st.text("ab ", max_size=200), st.integers(LEAST_WIDTH, 2000))
def test_no_two_texts_of_any_timeline_meet(timeline: Timeline, title: str, page: int) -> None:
    scene = lay_out(timeline, title, page=page)
    assert scene.width == page
    assert overlaps(scene) == []
    assert outside(scene) == []
    assert ET.fromstring(draw(timeline, title, "svg")).tag.endswith("svg")


# -- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dark", [False, True])
def test_an_svg_says_in_words_what_it_shows(dark: bool) -> None:
    root = ET.fromstring(draw(HOTSPOT, "The <hotspot> & more", "svg", dark=dark))
    space = "{http://www.w3.org/2000/svg}"
    assert root.findtext(f"{space}title") == "The <hotspot> & more"
    description = root.findtext(f"{space}desc") or ""
    assert "day 1: Alice visits bank.test: protected." in description
    fills = {element.get("fill") for element in root.iter()}
    paper, other = (DARK, LIGHT) if dark else (LIGHT, DARK)
    assert paper["ground"] in fills
    assert other["ground"] not in fills


def test_a_png_is_as_wide_as_a_page() -> None:
    data = draw(HOTSPOT, "The hotspot", "png")
    assert data.startswith(b"\x89PNG")
    assert int.from_bytes(data[16:20]) == WIDTH
    assert int.from_bytes(data[20:24]) == int(lay_out(HOTSPOT, "The hotspot").height)
    assert draw(HOTSPOT, "The hotspot", "png") == data
    assert draw(HOTSPOT, "The hotspot", "png", dark=True) != data


def test_the_same_story_gives_the_same_picture(played: dict[tuple[str, str], Playing]) -> None:
    """Keys differ each time, so no picture may contain a pin, or be arranged by one."""
    name = SCENARIOS[0]
    first, second = timeline_of(name, played), play(scenarios()[name], "dynpin")
    assert {key.pin for key in first.keys}.isdisjoint(key.pin for key in second.keys)
    assert draw(first, "It", "svg") == draw(second, "It", "svg")


def test_a_page_gets_its_parts_and_lends_the_colours() -> None:
    parts, words = draw_inline(HOTSPOT, "The hotspot", ["dynpin", "wget2"])
    scene = lay_out(HOTSPOT, "The hotspot", ["dynpin", "wget2"])
    assert words == scene.description
    assert len(parts) == len(scene.cuts) + 1
    texts = [element.text for part in parts for element in ET.fromstring(part).iter("text")]
    assert texts == [text.text for text in scene.texts]
    assert "with dynpin, wget2" in texts
    assert not any(color in part for part in parts for color in LIGHT.values())
    heights = [float(ET.fromstring(part).get("height") or 0) for part in parts]
    assert sum(heights) == pytest.approx(scene.height, abs=1)


# -- colours ----------------------------------------------------------------------------------------------------------


def luminance(color: str) -> float:
    channels = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("paper", [LIGHT, DARK], ids=["light", "dark"])
def test_colours_have_the_contrast_that_text_needs(paper: dict[str, str]) -> None:
    keys = [paper[key_color(number)] for number in range(KEYS)]
    assert len(set(keys)) == KEYS
    for name in ("ink", "faint", "good", "bad", "dull"):
        assert contrast(paper[name], paper["ground"]) >= 4.5, name
    assert contrast(paper["ink"], paper["raised"]) >= 4.5
    for color in keys:
        assert contrast(color, paper["on-key"]) >= 4.5, color
        assert contrast(color, paper["ground"]) >= 3, color


def test_no_colour_comes_twice_among_keys(played: dict[tuple[str, str], Playing]) -> None:
    keys = [Key(f"key {number}", pin(f"k{number}"), "bank.test") for number in range(KEYS)]
    many = story(replace(visit(0, noting="noted", until=30), pinned=tuple(key.pin for key in keys)))
    many.keys = keys
    signs = [sign for sign, _ in Cast(many).signs.values()]
    assert len({sign.letter for sign in signs}) == len({sign.color for sign in signs}) == KEYS
    # No story has nearly as many keys.
    for name in ("super-cookie", "report-loops"):
        colors = [sign.color for sign, _ in Cast(timeline_of(name, played)).signs.values()]
        assert len(set(colors)) == len(colors)


def test_every_text_is_a_line() -> None:
    for text in lay_out(HOTSPOT, "The hotspot").texts:
        assert isinstance(text, Text)
        assert "\n" not in text.text
