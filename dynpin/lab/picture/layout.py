"""A timeline laid out as a scene: actors are lanes side by side, time runs downwards, and words describe each event.

A picture is as wide as its page, so it can be read on a phone, on paper and on a screen. Lanes and words have their own
columns, and each event has a row, so texts never overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dynpin.lab.picture.cast import EDGE, Cast
from dynpin.lab.picture.holdings import with_expiries
from dynpin.lab.picture.legend import add_legend
from dynpin.lab.picture.part import Part
from dynpin.lab.picture.scene import Scene, Text, wrapped
from dynpin.lab.timeline import Timeline

__all__ = ["LEAST_WIDTH", "WIDTH", "lay_out"]

# Pixels: the width of a page of text, and of the narrowest phone.
WIDTH, LEAST_WIDTH = 640, 340
_TITLE, _AGENT = 16.0, 12.0


def lay_out(timeline: Timeline, title: str, agents: Sequence[str] = (), *, page: int = WIDTH) -> Scene:
    """The scene of a timeline, as high as needed.

    Args:
        timeline: the events.
        title: the title above the picture.
        agents: the user agents with this course; if there are none, the timeline's own.
        page: the width in pixels, at least `LEAST_WIDTH`.
    """
    timeline = replace(timeline, events=with_expiries(timeline.events, timeline.hostile_keys))
    cast = Cast(timeline)
    told = " ".join(f"{moment.when}: {moment.sentence}" for moment in cast.moments)
    scene = Scene(page, 0, title, told)
    top = 26.0
    for line in wrapped(title, _TITLE, page - 2 * EDGE, bold=True):
        scene.add(Text(EDGE, top, line, _TITLE, bold=True))
        top += 20
    for line in wrapped(f"with {', '.join(agents or (timeline.agent,))}", _AGENT, page - 2 * EDGE):
        scene.add(Text(EDGE, top, line, _AGENT, "faint"))
        top += 16
    for number, (lanes, moments) in enumerate(cast.parts()):
        if number:
            scene.may_break(top)
        top = Part(cast, lanes, moments, top, page).draw(scene)
    scene.height = add_legend(scene, cast, top + 4)
    return scene
