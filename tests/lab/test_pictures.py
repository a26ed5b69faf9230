"""The pictures of timelines: nothing overlaps, nothing is told by colour alone, the same story gives the same file."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import replace
from functools import cache
from pathlib import Path
from xml.etree import ElementTree as ET

import matplotlib as mpl
import pytest
from fontTools.ttLib import TTFont  # type: ignore[import-untyped] # comes with matplotlib, without types
from hypothesis import given, settings
from hypothesis import strategies as st

from dynpin.lab.picture import draw, draw_inline
from dynpin.lab.picture.cast import UNKNOWN, Cast
from dynpin.lab.picture.glyphs import FORMS
from dynpin.lab.picture.holdings import holdings, with_expiries
from dynpin.lab.picture.layout import LEAST_WIDTH, WIDTH, lay_out
from dynpin.lab.picture.letters import BOLD, REGULAR
from dynpin.lab.picture.paper import DARK, KEYS, LIGHT, key_color
from dynpin.lab.picture.scene import Line, Rect, Scene, Text, clipped, width, wrapped
from dynpin.lab.picture.times import moments, rows
from dynpin.lab.scenarios import play, scenarios
from dynpin.lab.timeline import Actor, Event, Key, Outcome, Role, Timeline, day
from dynpin.pins import Pin

DAY = 86_400.0
SCENARIOS = list(scenarios())


def pin(name: str) -> Pin:
    return Pin(hashlib.sha256(name.encode()).digest())


HOME, BACKUP, FORGED, ROOT = map(pin, ("home", "backup", "forged", "root"))


def story(*events: Event) -> Timeline:
    return Timeline(
        "story",
        "dynpin",
        [
            Actor("Honest CA", "authority"),
            Actor("bank.test", "site", "pins for 30 days"),
            Actor("Mallory", "attacker"),
            Actor("Alice", "client"),
        ],
        [
            Key("Honest CA key", ROOT, "Honest CA"),
            Key("bank.test key 1", HOME, "bank.test"),
            Key("bank.test key 2", BACKUP, "bank.test"),
            Key("Mallory key 1", FORGED, "Mallory"),
        ],
        list(events),
    )


def visit(at: float, outcome: Outcome = "served", noting: str | None = None, *, until: float | None = None) -> Event:
    """Alice at the bank, or where Mallory has taken its name; she holds pins where `until` is given."""
    fooled = outcome in ("fooled", "protected")
    return Event(
        at * DAY,
        "Alice",
        f"visits bank.test: {outcome}",
        target="Mallory" if fooled else "bank.test",
        outcome=outcome,
        host="bank.test",
        shown=(FORGED,) if fooled else (HOME, ROOT),
        pinned=() if until is None else (HOME, BACKUP),
        pinned_until=None if until is None else until * DAY,
        noting=noting,
        bytes_read=0 if outcome in ("protected", "locked-out") else 177,
    )


HOTSPOT = story(
    visit(0, noting="noted", until=30),
    Event(DAY, "Mallory", "answers bank.test", target="bank.test", shown=(FORGED,)),
    visit(1, "protected", until=30),
    visit(40, "fooled"),
)


@cache
def played(name: str) -> Timeline:
    return play(scenarios()[name], "dynpin")


def overlaps(scene: Scene) -> list[tuple[str, str]]:
    return [(one.text, other.text) for one, other in itertools.combinations(scene.texts, 2) if one.box.meets(other.box)]


def outside(scene: Scene) -> list[str]:
    page = (0, 0, scene.width, scene.height)
    return [
        text.text
        for text in scene.texts
        if text.box.left < page[0] or text.box.top < page[1] or text.box.right > page[2] or text.box.bottom > page[3]
    ]


# -- texts -------------------------------------------------------------------------------------------------------------


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
def test_no_two_texts_of_a_scenario_meet(name: str) -> None:
    scene = lay_out(played(name), scenarios()[name].title)
    assert overlaps(scene) == []
    assert outside(scene) == []


_NAMES = st.sampled_from(
    ["Alice", "bank.test", "Mallory", "Honest CA", "a.very-long-name.of-some-service.internal.test"]
)


@st.composite
def timelines(draw: st.DrawFn) -> Timeline:
    """What no author would write: any names, any times, pins that nobody has, many hosts."""
    roles: tuple[Role, ...] = ("authority", "site", "attacker", "client")
    names = draw(st.lists(_NAMES, min_size=1, unique=True))
    actors = [Actor(name, draw(st.sampled_from(roles)), draw(st.text("ab ", max_size=60))) for name in names]
    pins = [pin(str(number)) for number in range(7)]
    keys = [Key(f"key {number}", one, draw(_NAMES)) for number, one in enumerate(pins[:5])]
    chosen = st.lists(st.sampled_from(pins), max_size=6, unique=True).map(tuple)
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
        pinned_until=st.none() | st.sampled_from([2 * DAY, 100 * DAY]),
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


# -- what is drawn -----------------------------------------------------------------------------------------------------


def test_refused_is_told_from_read_by_form_and_word_and_colour() -> None:
    assert {outcome: (form.color, form.passed, form.sign) for outcome, form in FORMS.items()} == {
        "served": ("good", True, "→"),
        "protected": ("good", False, "⊣"),
        "fooled": ("bad", True, "→"),
        "locked-out": ("bad", False, "⊣"),
        "failed": ("dull", False, "✗"),
    }
    assert len({form.word for form in FORMS.values()}) == len(FORMS)
    for outcome, form in FORMS.items():
        scene = lay_out(story(visit(0, outcome)), "One visit")
        lines = [mark for mark in scene.marks if isinstance(mark, Line) and form.color in (mark.stroke, mark.fill)]
        # Once in the lanes and once in the legend.
        dashed = [line for line in lines if line.dash]
        tips = [line for line in lines if line.closed and len(line.points) == 3]
        assert (len(dashed), len(tips)) == ((0, 2) if form.passed else (2, 0)), outcome
        words = {text.text for text in scene.texts}
        assert form.meaning in words
        assert ("read 177 bytes" if outcome == "fooled" else form.word) in words


def test_a_key_has_a_letter_and_a_shape_by_its_owner() -> None:
    cast = Cast(HOTSPOT)
    assert {name: (sign.letter, sign.shape) for sign, name in cast.signs.values()} == {
        "bank.test key 1": ("A", "site"),
        "bank.test key 2": ("B", "site"),
        "Mallory key 1": ("C", "attacker"),
    }, "a root that nobody pins is left out"
    pinned_root = replace(visit(0, noting="noted", until=30), pinned=(ROOT, BACKUP))
    assert {name: sign.shape for sign, name in Cast(story(pinned_root)).signs.values()}["Honest CA key"] == "authority"
    assert cast.sign(pin("of a stranger")) == UNKNOWN


def test_pins_are_bands_from_the_noting_to_the_expiry() -> None:
    told = with_expiries(HOTSPOT.events)
    assert [(event.at / DAY, event.noting) for event in told] == [
        (0, "noted"),
        (1, None),
        (1, None),
        (30, "removed"),
        (40, None),
    ]
    (held,) = holdings(told)
    assert (held.client, held.host, held.pins, held.first, held.last) == ("Alice", "bank.test", (HOME, BACKUP), 0, 3)
    scene = lay_out(HOTSPOT, "The hotspot")
    colors = {Cast(HOTSPOT).sign(one).color for one in (HOME, BACKUP)}
    stripes = [mark for mark in scene.marks if isinstance(mark, Rect) and mark.fill in colors]
    assert len(stripes) >= 2
    assert len({round(stripe.box.right) for stripe in stripes if stripe.box.right - stripe.box.left > 40}) == 1


def test_pins_of_an_attacker_are_told_as_such_when_they_expire() -> None:
    hostile = [Key("Mallory key 1", HOME, "Mallory")]
    events = [visit(0, noting="noted", until=30), visit(40)]
    assert with_expiries(events)[1].text == "holds the pins of bank.test no longer: they have expired"
    assert with_expiries(events, hostile)[1].text == "holds Mallory's pins for bank.test no longer: they have expired"


def test_pins_lapse_without_a_column_where_their_client_is_seen_no_more() -> None:
    seen = Event(40 * DAY, "Mallory", "waits")
    told = with_expiries([visit(0, noting="noted", until=30), seen])
    assert told[-1] == seen
    assert len(told) == 2
    (held,) = holdings(told)
    assert (held.last, held.has_lapsed) == (1, True)
    # The band ends before what happens ten days after the expiry, and not with it.
    scene = lay_out(story(*told), "Lapsed")
    stripes = [mark.box.right for mark in scene.marks if isinstance(mark, Rect) and mark.fill == key_color(0)]
    (waits,) = [text.box.left for text in scene.texts if text.text.endswith("Mallory waits.")]
    assert all(right < waits for right in stripes)


def test_a_row_of_a_story_with_many_actors_shows_those_who_have_a_part_in_it() -> None:
    crowd = [Actor(f"client {number}", "client") for number in range(12)]
    events = [Event(0, one.name, "visits", target="bank.test", outcome="served", host="bank.test") for one in crowd]
    scene = lay_out(Timeline("crowd", "dynpin", [Actor("bank.test", "site"), *crowd], [], events), "A crowd")
    names = [text.text for text in scene.texts if text.bold]
    assert all(names.count(one.name) == 1 for one in crowd)
    assert names.count("bank.test") == len(scene.cuts) + 1 > 1


BANDS = {
    "renewed with the same pins": (
        [visit(0, noting="noted", until=9), visit(5, noting="updated", until=14)],
        [(0, None)],
    ),
    "let go": ([visit(0, noting="noted", until=9), replace(visit(5, until=9), noting="removed")], [(0, 1)]),
    "gone without a word": ([visit(0, noting="noted"), visit(5)], []),
    "other pins": (
        [
            visit(0, noting="noted", until=30),
            replace(visit(1, noting="updated", until=30), pinned=(BACKUP, FORGED)),
        ],
        [(0, 1), (1, None)],
    ),
    "held from before": ([visit(0, until=9)], [(0, None)]),
    "of a superdomain": (
        [visit(0, noting="noted", until=9), replace(visit(1, until=9), host="shop.bank.test")],
        [(0, None)],
    ),
    "forgotten by the user": (
        [visit(0, noting="noted", until=9), Event(DAY, "Alice", "forgets", host="bank.test", noting="removed")],
        [(0, 1)],
    ),
}


@pytest.mark.parametrize("case", BANDS)
def test_what_a_client_holds(case: str) -> None:
    events, expected = BANDS[case]
    assert [(held.first, held.last) for held in holdings(with_expiries(events))] == expected


@pytest.mark.parametrize(
    ("at", "told"),
    [(0, "day 0"), (59, "day 0"), (3600, "day 0, 01:00"), (30 * DAY, "day 30"), (30 * DAY + 90 * 60, "day 30, 01:30")],
)
def test_times_in_words(at: float, told: str) -> None:
    assert day(at) == told


def test_gaps_are_named_where_time_passes() -> None:
    assert [moment.gap for moment in moments(story(visit(0), visit(0), visit(1), visit(31), visit(31.5)))] == [
        "",
        "",
        "1 day",
        "30 days",
        "12 hours",
    ]


@given(st.integers(0, 60), st.integers(1, 12))
def test_rows_keep_the_order_and_are_about_as_long(count: int, most: int) -> None:
    found = moments(story(*[visit(number) for number in range(count)]))
    broken = rows(found, most)
    assert [moment for row in broken for moment in row] == found
    lengths = [len(row) for row in broken]
    assert all(length <= most for length in lengths)
    assert max(lengths, default=0) - min(lengths, default=0) <= 1


# -- files -------------------------------------------------------------------------------------------------------------


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


def test_a_png_is_1200_pixels_wide() -> None:
    data = draw(HOTSPOT, "The hotspot", "png")
    assert data.startswith(b"\x89PNG")
    assert int.from_bytes(data[16:20]) == WIDTH
    assert int.from_bytes(data[20:24]) == int(lay_out(HOTSPOT, "The hotspot").height)
    assert draw(HOTSPOT, "The hotspot", "png") == data
    assert draw(HOTSPOT, "The hotspot", "png", dark=True) != data


def test_the_same_story_gives_the_same_picture() -> None:
    """Keys are others at each playing, so no pin may stand in a picture, and none may decide where a thing stands."""
    name = SCENARIOS[0]
    first, second = played(name), play(scenarios()[name], "dynpin")
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


# -- colours -----------------------------------------------------------------------------------------------------------


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


def test_letters_go_on_when_the_colours_begin_again() -> None:
    keys = [Key(f"key {number}", pin(f"k{number}"), "bank.test") for number in range(KEYS + 2)]
    many = story(replace(visit(0, noting="noted", until=30), pinned=tuple(key.pin for key in keys)))
    many.keys = keys
    signs = [sign for sign, _ in Cast(many).signs.values()]
    assert len({sign.letter for sign in signs}) == KEYS + 2
    assert signs[KEYS].color == signs[0].color


def test_every_text_is_a_line() -> None:
    for text in lay_out(HOTSPOT, "The hotspot").texts:
        assert isinstance(text, Text)
        assert "\n" not in text.text
