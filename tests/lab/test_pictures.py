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
from dynpin.lab.picture.legend import SIGNS
from dynpin.lab.picture.letters import BOLD, REGULAR
from dynpin.lab.picture.paper import DARK, KEYS, LIGHT, key_color
from dynpin.lab.picture.scene import Line, Rect, Scene, Text, clipped, width, wrapped
from dynpin.lab.picture.times import moments
from dynpin.lab.scenarios import play, scenarios
from dynpin.lab.timeline import Actor, Event, Held, Key, Outcome, Role, Timeline, day
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
        noting=noting,
        held={} if until is None else {"Alice": (Held("bank.test", (HOME, BACKUP), until=until * DAY),)},
        bytes_read=0 if outcome in ("protected", "locked-out") else 177,
    )


HOTSPOT = story(
    visit(0, noting="noted", until=30),
    Event(DAY, "Mallory", "answers bank.test", target="bank.test", shown=(FORGED,)),
    visit(1, "protected"),
    replace(visit(40, "fooled"), held={"Alice": ()}),
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
        assert form.word in words
        assert any(form.meaning in text.text for text in scene.texts)


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
    assert (held.client, held.held.host, held.held.pins) == ("Alice", "bank.test", (HOME, BACKUP))
    assert (held.first, held.last, held.end) == (0, 3, "expired")
    scene = lay_out(HOTSPOT, "The hotspot")
    colors = {Cast(HOTSPOT).sign(one).color for one in (HOME, BACKUP)}
    stripes = [mark for mark in scene.marks if isinstance(mark, Rect) and mark.fill in colors]
    assert len({round(stripe.box.bottom) for stripe in stripes if stripe.box.bottom - stripe.box.top > 40}) == 1


def test_pins_of_an_attacker_are_told_as_such_when_they_expire() -> None:
    hostile = [Key("Mallory key 1", HOME, "Mallory")]
    events = [visit(0, noting="noted", until=30), replace(visit(40), held={"Alice": ()})]
    assert with_expiries(events)[1].text == "holds the pins of bank.test no longer: they have expired"
    assert with_expiries(events, hostile)[1].text == "holds Mallory's pins for bank.test no longer: they have expired"


def test_pins_lapse_without_a_row_where_their_client_is_seen_no_more() -> None:
    seen = Event(40 * DAY, "Mallory", "waits", held={"Alice": ()})
    told = with_expiries([visit(0, noting="noted", until=30), seen])
    assert told[-1] == seen
    assert len(told) == 2
    (held,) = holdings(told)
    assert (held.last, held.end) == (1, "expired")


def entry(host: str = "bank.test", pins: tuple[Pin, ...] = (HOME, BACKUP), until: float = 9) -> Held:
    return Held(host, pins, until=until * DAY)


# What Alice's store told after each of several events, a day apart; the bands: host, from, to, and how they ended.
BANDS: dict[str, tuple[list[tuple[Held, ...]], list[tuple[str, int, int | None, str | None]]]] = {
    "renewed with the same pins": ([(entry(),), (entry(until=14),)], [("bank.test", 0, None, None)]),
    "unpinned or driven out": ([(entry(),), ()], [("bank.test", 0, 1, "gone")]),
    "other pins": (
        [(entry(),), (entry(pins=(BACKUP, FORGED)),)],
        [("bank.test", 0, 1, "replaced"), ("bank.test", 1, None, None)],
    ),
    "subdomains from now on": (
        [(entry(),), (replace(entry(), include_subdomains=True),)],
        [("bank.test", 0, 1, "replaced"), ("bank.test", 1, None, None)],
    ),
    "two hosts": (
        [(entry(), entry("shop.test")), (entry("shop.test"),)],
        [("bank.test", 0, 1, "gone"), ("shop.test", 0, None, None)],
    ),
    "expired": ([(entry(until=0.5),), ()], [("bank.test", 0, 1, "expired")]),
    "not there, and there again": (
        [(entry(),), (), (entry(),)],
        [("bank.test", 0, 1, "gone"), ("bank.test", 2, None, None)],
    ),
}


@pytest.mark.parametrize("case", BANDS)
def test_a_band_is_what_the_store_told(case: str) -> None:
    told, expected = BANDS[case]
    events = [Event(number * DAY, "Mallory", "waits", held={"Alice": held}) for number, held in enumerate(told)]
    assert [(one.held.host, one.first, one.last, one.end) for one in holdings(events)] == expected


@pytest.mark.parametrize(("name", "agent"), [("clock-pushed", "chromium"), ("store-flooding", "firefox")])
def test_what_is_drawn_as_held_is_what_refuses(name: str, agent: str) -> None:
    """Whoever refuses holds pins that were not shown, and who is served or fooled holds none, or one that was."""
    timeline = play(scenarios()[name], agent)
    held: dict[str, tuple[Held, ...]] = {}
    for event in timeline.events:
        before = {each.host: each for each in held.get(event.actor, ())}
        held.update(event.held)
        if event.outcome in ("protected", "locked-out"):
            assert not set(before[event.host or ""].pins) & set(event.shown), event.text
        elif event.outcome in ("served", "fooled") and event.host in before and not event.noting:
            assert set(before[event.host].pins) & set(event.shown), event.text


def test_a_row_of_a_story_with_many_actors_shows_those_who_have_a_part_in_it() -> None:
    crowd = [Actor(f"client {number}", "client") for number in range(12)]
    events = [Event(0, one.name, "visits", target="bank.test", outcome="served", host="bank.test") for one in crowd]
    scene = lay_out(Timeline("crowd", "dynpin", [Actor("bank.test", "site"), *crowd], [], events), "A crowd")
    names = [text.text for text in scene.texts if text.bold]
    assert all(names.count(one.name) == 1 for one in crowd)
    assert names.count("bank.test") == len(scene.cuts) + 1 > 1


def test_the_legend_has_every_sign_that_is_drawn_and_no_other() -> None:
    events = [
        replace(
            visit(0, noting="noted", until=30),
            held={"Alice": (replace(entry(), include_subdomains=True, static=True),)},
        ),
        Event(1 * DAY, "Mallory", "does it", target="bank.test"),
        Event(1 * DAY, "Alice", "reports", target="bank.test", report="taken"),
        Event(1 * DAY, "Alice", "tries to report", target="bank.test", report="failed", held={"Alice": ()}),
        Event(1 * DAY, "Alice", "has others", held={"Alice": (entry(until=2),)}),
        Event(3 * DAY, "Alice", "waits", held={"Alice": ()}),
    ]
    words = {text.text for text in lay_out(story(*events), "All of it").texts}
    assert {meaning for _, meaning in SIGNS.values()} <= words
    few = {text.text for text in lay_out(story(Event(0, "Alice", "waits")), "One").texts}
    assert {meaning for _, meaning in SIGNS.values()} & few == {"something is done"}


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


@given(st.integers(0, 60))
def test_parts_keep_the_order_and_none_is_long(count: int) -> None:
    cast = Cast(story(*[visit(number) for number in range(count)]))
    parts = [moments for _, moments in cast.parts()]
    assert [moment for part in parts for moment in part] == cast.moments
    lengths = [len(part) for part in parts]
    assert max(lengths, default=0) <= 9
    assert max(lengths, default=0) - min(lengths, default=0) <= max(1, len(parts))


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


def test_a_png_is_as_wide_as_a_page() -> None:
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


def test_no_colour_comes_twice_among_keys() -> None:
    keys = [Key(f"key {number}", pin(f"k{number}"), "bank.test") for number in range(KEYS)]
    many = story(replace(visit(0, noting="noted", until=30), pinned=tuple(key.pin for key in keys)))
    many.keys = keys
    signs = [sign for sign, _ in Cast(many).signs.values()]
    assert len({sign.letter for sign in signs}) == len({sign.color for sign in signs}) == KEYS
    # No story comes near that.
    for name in ("super-cookie", "report-loops"):
        colors = [sign.color for sign, _ in Cast(played(name)).signs.values()]
        assert len(set(colors)) == len(colors)


def test_every_text_is_a_line() -> None:
    for text in lay_out(HOTSPOT, "The hotspot").texts:
        assert isinstance(text, Text)
        assert "\n" not in text.text
