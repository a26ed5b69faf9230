"""The pictures of timelines: nothing overlaps, and colour alone never carries meaning."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynpin.lab.picture.cast import UNKNOWN, Cast
from dynpin.lab.picture.glyphs import FORMS
from dynpin.lab.picture.holdings import holdings, with_expiries
from dynpin.lab.picture.layout import lay_out
from dynpin.lab.picture.legend import SIGNS
from dynpin.lab.picture.scene import Line, Rect
from dynpin.lab.picture.times import moments
from dynpin.lab.playing import Playing
from dynpin.lab.timeline import Actor, Event, Held, Key, Timeline, day
from dynpin.pins import Pin

from .picture_stories import BACKUP, DAY, FORGED, HOME, HOTSPOT, ROOT, pin, story, visit


def test_refused_and_read_differ_in_form_and_word_and_colour() -> None:
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


def test_the_expiry_of_an_attackers_pins_names_the_attacker() -> None:
    hostile = [Key("Mallory key 1", HOME, "Mallory")]
    events = [visit(0, noting="noted", until=30), replace(visit(40), held={"Alice": ()})]
    assert with_expiries(events)[1].text == "holds the pins of bank.test no longer: they have expired"
    assert with_expiries(events, hostile)[1].text == "holds Mallory's pins for bank.test no longer: they have expired"


def test_an_expiry_has_no_row_if_the_client_does_not_act_again() -> None:
    seen = Event(40 * DAY, "Mallory", "waits", held={"Alice": ()})
    told = with_expiries([visit(0, noting="noted", until=30), seen])
    assert told[-1] == seen
    assert len(told) == 2
    (held,) = holdings(told)
    assert (held.last, held.end) == (1, "expired")


def entry(host: str = "bank.test", pins: tuple[Pin, ...] = (HOME, BACKUP), until: float = 9) -> Held:
    return Held(host, pins, until=until * DAY)


# What Alice's store held after each of several events, a day apart. The bands: host, from, to, and how they ended.
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
def test_a_band_matches_the_stores_content(case: str) -> None:
    told, expected = BANDS[case]
    events = [Event(number * DAY, "Mallory", "waits", held={"Alice": held}) for number, held in enumerate(told)]
    assert [(one.held.host, one.first, one.last, one.end) for one in holdings(events)] == expected


@pytest.mark.parametrize("agent", ["dynpin", "chromium", "firefox"])
def test_pins_that_a_moved_clock_has_ended_are_drawn_as_expired(
    agent: str, played: dict[tuple[str, str], Playing]
) -> None:
    timeline = played["clock-pushed", agent].timeline
    assert timeline is not None
    ends = [(held.client, held.end) for held in holdings(timeline.events) if held.end is not None]
    assert ends == [("Alice", "expired"), ("Bob", "expired")][: 2 if agent == "dynpin" else 1]


@pytest.mark.parametrize(
    ("name", "agent"), [("clock-pushed", "chromium"), ("store-flooding", "firefox"), ("cross-signed", "wget2")]
)
def test_the_pins_in_the_picture_explain_each_refusal(
    name: str, agent: str, played: dict[tuple[str, str], Playing]
) -> None:
    """A client that refuses holds no shown pin. One that is served or fooled holds a shown pin, or none."""
    timeline = played[name, agent].timeline
    if timeline is None:
        pytest.skip(played[name, agent].missing)
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
