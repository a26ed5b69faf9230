"""A timeline laid out as a scene: actors as lanes, time left to right, in rows like the systems of a score.

Every event has a column of its own, headed by its time and its sentence, so no text of one event meets another's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dynpin.lab.picture.cast import EDGE, SMALL, Cast
from dynpin.lab.picture.holdings import with_expiries
from dynpin.lab.picture.legend import add_legend
from dynpin.lab.picture.row import Column, Row
from dynpin.lab.picture.scene import Scene, Text, clipped, width
from dynpin.lab.picture.times import Moment, moments, rows
from dynpin.lab.timeline import Timeline

__all__ = ["LEAST_WIDTH", "WIDTH", "lay_out"]

# Pixels. A picture is as wide as a page, and its columns share that; below the least there is no room for two.
WIDTH, LEAST_WIDTH = 1200, 640
_COLUMN = 134.0
_TITLE, _AGENT = 19.0, 12.5


def lay_out(timeline: Timeline, title: str, agents: Sequence[str] = (), *, page: int = WIDTH) -> Scene:
    """The scene of a timeline, as high as it takes.

    Args:
        timeline: what happened.
        title: over the picture.
        agents: the user agents with which it went so; that of the timeline where none is named.
        page: how wide it is, in pixels; `LEAST_WIDTH` or more.
    """
    timeline = replace(timeline, events=with_expiries(timeline.events, timeline.hostile_keys))
    found = moments(timeline)
    cast = Cast(timeline)
    told = " ".join(f"{moment.when}: {moment.sentence}" for moment in found)
    scene = Scene(page, 0, title, told)
    agent = f"with {', '.join(agents or (timeline.agent,))}"
    scene.add(Text(page - EDGE, 36, agent, _AGENT, "faint", anchor="end"))
    room = page - 3 * EDGE - width(agent, _AGENT)
    scene.add(Text(EDGE, 36, clipped(title, _TITLE, room, bold=True), _TITLE, bold=True))
    top = 56.0
    for number, columns in enumerate(_placed(found, cast, page)):
        if number:
            scene.may_break(top - 8)
        top = Row(cast, columns, top).draw(scene)
    scene.height = add_legend(scene, cast, top + 4)
    return scene


def _placed(found: Sequence[Moment], cast: Cast, page: int) -> list[list[Column]]:
    """The moments in as few rows as are readable, each as wide as the page."""
    most = len(found)
    while most > 1 and min(_widths(rows(found, most), cast, page)) < _COLUMN:
        most -= 1
    broken = rows(found, most)
    placed: list[list[Column]] = []
    for row, wide in zip(broken, _widths(broken, cast, page), strict=True):
        columns: list[Column] = []
        left = page - EDGE - _room(row, cast, page)
        for moment in row:
            left += _gap(moment) if columns else 0
            columns.append(Column(moment, left, left + wide))
            left += wide
        placed.append(columns)
    return placed


def _widths(broken: Sequence[Sequence[Moment]], cast: Cast, page: int) -> list[float]:
    return [(_room(row, cast, page) - sum(map(_gap, row[1:]))) / len(row) for row in broken]


def _room(row: Sequence[Moment], cast: Cast, page: int) -> float:
    """The width that the columns of a row share: bands that come from the row before show their signs ahead of them."""
    first = row[0].number - 1
    held = [len(one.pins) for one in cast.holdings if one.first < first and (one.last is None or one.last >= first)]
    ahead = max(0.0, 21.0 * max(held) - 8) if held else 0.0
    return page - cast.margin - EDGE - min(ahead, 80.0)


def _gap(moment: Moment) -> float:
    return max(44.0, width(moment.gap, SMALL) + 18) if moment.gap else 0.0
