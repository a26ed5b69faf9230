"""All scenarios as one HTML page that a teacher can hand out: nothing runs in it, and nothing comes from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from dynpin import __version__
from dynpin.lab.agents import AGENTS
from dynpin.lab.picture import draw_inline
from dynpin.lab.picture.glyphs import FORMS
from dynpin.lab.picture.paper import DARK, LIGHT
from dynpin.lab.playing import Playing
from dynpin.lab.scenarios import Scenario
from dynpin.lab.timeline import Event, Outcome, Timeline, day

__all__ = ["write_handout"]


@dataclass(frozen=True, slots=True)
class _Visit:
    """A line of what each client saw: the same visit with each agent."""

    when: str
    client: str
    host: str
    outcomes: tuple[Outcome | None, ...]
    why: str
    section: str


@dataclass(frozen=True, slots=True)
class _Picture:
    """A picture, the agents with which the story went just so, and those with which only the noting differs."""

    agents: tuple[str, ...]
    parts: tuple[Markup, ...]
    words: str
    alike: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Chapter:
    """A scenario as a section of the page."""

    scenario: Scenario
    played: tuple[str, ...]
    missing: tuple[str, ...]
    cells: tuple[Playing | None, ...]
    pictures: tuple[_Picture, ...]
    visits: tuple[_Visit, ...]
    remarks: tuple[tuple[str, bool], ...]


def write_handout(scenarios: Sequence[Scenario], playings: Sequence[Playing]) -> str:
    """The page about these playings.

    Args:
        scenarios: in the order of the page.
        playings: what came of them (:func:`dynpin.lab.playing.play_all`).
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["code"] = _code
    agents = [name for name in AGENTS if any(playing.agent == name for playing in playings)]
    return environment.get_template("handout.html").render(
        agents=[AGENTS[name] for name in agents],
        chapters=[_chapter(scenario, agents, playings) for scenario in scenarios],
        forms=FORMS,
        light=LIGHT,
        dark=DARK,
        version=__version__,
    )


def _code(text: str) -> Markup:
    """What stands in backticks, as code."""
    parts = text.split("`")
    return Markup().join(Markup("<code>{}</code>").format(part) if at % 2 else part for at, part in enumerate(parts))


def _chapter(scenario: Scenario, agents: Sequence[str], playings: Sequence[Playing]) -> _Chapter:
    found = {playing.agent: playing for playing in playings if playing.scenario == scenario.name}
    timelines = {agent: playing.timeline for agent, playing in found.items() if playing.timeline is not None}
    first = next(iter(timelines.values()), None)
    return _Chapter(
        scenario=scenario,
        played=tuple(timelines),
        missing=tuple(playing.missing for playing in found.values() if playing.missing),
        cells=tuple(found.get(agent) for agent in agents),
        pictures=_pictures(scenario, timelines),
        visits=_visits(timelines),
        remarks=tuple((first.named(remark.text), remark.holds) for remark in first.remarks) if first else (),
    )


def _pictures(scenario: Scenario, timelines: dict[str, Timeline]) -> tuple[_Picture, ...]:
    """A picture for each way in which the visits came out; that an agent noted something else makes no other one."""
    outcomes: dict[tuple[object, ...], dict[tuple[object, ...], list[str]]] = {}
    for agent, timeline in timelines.items():
        came_out = tuple((visit.actor, visit.host, visit.outcome) for visit in timeline.visits)
        course = tuple(map(_course, timeline.events))
        outcomes.setdefault(came_out, {}).setdefault(course, []).append(agent)
    pictures: list[_Picture] = []
    for courses in outcomes.values():
        agents, *others = courses.values()
        parts, words = draw_inline(timelines[agents[0]], scenario.title, agents)
        # Elements that ElementTree has written: every text in them is escaped.
        drawn = tuple(Markup(part) for part in parts)  # noqa: S704
        pictures.append(_Picture(tuple(agents), drawn, words, tuple(agent for other in others for agent in other)))
    return tuple(pictures)


def _course(event: Event) -> tuple[object, ...]:
    """What makes a story another one: not how many bytes a program's request has, nor how it words its refusal."""
    noting = None if event.noting == "ignored" else event.noting
    return event.actor, event.target, event.outcome, noting, len(event.pinned)


def _visits(timelines: dict[str, Timeline]) -> tuple[_Visit, ...]:
    courses = {agent: timeline.visits for agent, timeline in timelines.items()}
    longest = max(courses, key=lambda agent: len(courses[agent]), default=None)
    if longest is None:
        return ()
    return tuple(
        _Visit(
            day(visit.at),
            visit.actor,
            visit.host or "",
            tuple(course[index].outcome if index < len(course) else None for course in courses.values()),
            timelines[longest].named(visit.reason),
            visit.section,
        )
        for index, visit in enumerate(courses[longest])
    )
