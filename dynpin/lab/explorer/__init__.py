"""The explorer: every playing on one page, for stepping through in a browser without a network."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from markupsafe import Markup

from dynpin import __version__
from dynpin.lab.agents import AGENTS
from dynpin.lab.pages import page_templates
from dynpin.lab.picture.cast import Cast
from dynpin.lab.picture.glyphs import FORMS
from dynpin.lab.picture.holdings import with_expiries
from dynpin.lab.picture.paper import DARK, KEYS, LIGHT, key_color
from dynpin.lab.playing import Playing
from dynpin.lab.scenarios import Scenario
from dynpin.lab.timeline import Timeline
from dynpin.pins import Pin

__all__ = ["write_explorer"]

_FOLDER = Path(__file__).parent


def write_explorer(scenarios: Sequence[Scenario], playings: Sequence[Playing], handout: str = "") -> str:
    """The page about these playings, as HTML.

    Its Content-Security-Policy allows the page's own script and style by their digests, and nothing else. So the page
    can send no request, and no text of a story can run.

    Args:
        scenarios: in the order of the list.
        playings: their results (:func:`dynpin.lab.playing.play_all`).
        handout: the URL of the handout, for browsers without scripts; empty for none.
    """
    environment = page_templates(_FOLDER)
    colors = [key_color(number) for number in range(KEYS)]
    style = environment.get_template("explorer.css").render(light=LIGHT, dark=DARK, colors=colors)
    script = (_FOLDER / "explorer.js").read_text("utf-8")
    return environment.get_template("explorer.html").render(
        # The page's own two files, and JSON that cannot contain a tag.
        style=Markup(style),  # noqa: S704
        script=Markup(script),  # noqa: S704
        data=Markup(_embedded(_document(scenarios, playings))),  # noqa: S704
        policy=f"default-src 'none'; script-src {_digest(script)}; style-src {_digest(style)}; base-uri 'none'; "
        "form-action 'none'",
        handout=handout,
        forms=FORMS,
        version=__version__,
    )


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _embedded(document: object) -> str:
    """JSON for a `<script>` element: without ``<`` it cannot end the element or begin a comment."""
    return json.dumps(document, separators=(",", ":")).replace("<", r"\u003c")


def _document(scenarios: Sequence[Scenario], playings: Sequence[Playing]) -> dict[str, object]:
    found = {(playing.scenario, playing.agent): playing for playing in playings}
    return {
        "agents": [{"name": agent.name, "title": agent.title} for agent in AGENTS.values()],
        "outcomes": {name: asdict(form) for name, form in FORMS.items()},
        "stories": [
            {
                "name": scenario.name,
                "title": f"{scenario.number}. {scenario.title}",
                "story": scenario.story,
                "playings": [
                    _playing(found[scenario.name, agent]) for agent in AGENTS if (scenario.name, agent) in found
                ],
            }
            for scenario in scenarios
        ],
    }


def _playing(playing: Playing) -> dict[str, object]:
    if playing.timeline is None:
        return {"agent": playing.agent, "missing": playing.missing}
    hostile = playing.timeline.hostile_keys
    told = replace(playing.timeline, events=with_expiries(playing.timeline.events, hostile))
    return {"agent": playing.agent} | _record(told)


def _record(timeline: Timeline) -> dict[str, object]:
    """The events. A key is written as its index in the list of keys, which has its sign in the pictures."""
    cast = Cast(timeline)
    names = {key.pin: key.name for key in timeline.keys}
    keys: list[dict[str, object]] = []
    places: dict[Pin, int] = {}

    def placed(pins: Sequence[Pin]) -> list[int]:
        for pin in pins:
            if pin not in places:
                places[pin] = len(keys)
                name = names.get(pin, "a key that nobody in the story has")
                sign = cast.sign(pin)
                # A key that nobody pins, such as that of a root, has a name but no sign.
                letter = "" if pin in names and pin not in cast.signs else sign.letter
                keys.append(
                    {"name": name, "pin": str(pin), "letter": letter, "color": sign.color, "shape": sign.shape or ""}
                )
        return [places[pin] for pin in pins]

    events = [
        {
            "at": event.at,
            "when": moment.when,
            "gap": moment.gap,
            "sentence": moment.sentence,
            "actor": event.actor,
            "target": event.target,
            "outcome": event.outcome,
            "host": event.host,
            "shown": placed(event.shown),
            "header": event.header,
            "noting": event.noting,
            "reason": timeline.named(event.reason),
            "section": event.section,
            "bytes": event.bytes_read,
            "report": event.report,
            "leaves": event.leaves,
            "held": {
                client: [asdict(each) | {"pins": placed(each.pins)} for each in entries]
                for client, entries in event.held.items()
            },
        }
        for moment, event in zip(cast.moments, cast.events, strict=True)
    ]
    return {"actors": [asdict(actor) for actor in cast.actors], "keys": keys, "events": events}
