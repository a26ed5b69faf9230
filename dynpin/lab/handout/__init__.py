"""All scenarios as one HTML page that a teacher can hand out. It has no scripts and loads nothing from elsewhere."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from dynpin import __version__
from dynpin.lab.agents import AGENTS
from dynpin.lab.pages import page_templates
from dynpin.lab.picture import draw_inline
from dynpin.lab.picture.glyphs import FORMS
from dynpin.lab.picture.paper import DARK, LIGHT
from dynpin.lab.playing import Playing
from dynpin.lab.scenarios import Scenario
from dynpin.lab.timeline import Event, Outcome, Timeline, day

__all__ = ["write_handout"]

# Pixels: the width of a picture on a phone.
PHONE = 360


@dataclass(frozen=True, slots=True)
class _Visit:
    """One line of the table of visits."""

    when: str
    client: str
    host: str
    outcome: Outcome
    why: str
    section: str


@dataclass(frozen=True, slots=True)
class _Course:
    """One course of the story, for all agents with the same record: picture, visits with reasons, assertions."""

    agents: tuple[str, ...]
    wide: tuple[Markup, ...]
    narrow: tuple[Markup, ...]
    description: str
    visits: tuple[_Visit, ...]
    remarks: tuple[tuple[str, bool], ...]


@dataclass(frozen=True, slots=True)
class _Difference:
    """A visit with different outcomes for different agents."""

    when: str
    client: str
    host: str
    outcomes: tuple[Outcome | None, ...]


@dataclass(frozen=True, slots=True)
class _Chapter:
    """A scenario as a section of the page.

    Attributes:
        cells: the outcome with each agent.
        options: for each option of a user, the outcome with each agent.
    """

    scenario: Scenario
    played: tuple[str, ...]
    missing: tuple[str, ...]
    cells: tuple[Playing | None, ...]
    options: Mapping[str, tuple[Outcome | None, ...]]
    courses: tuple[_Course, ...]
    differences: tuple[_Difference, ...]


def write_handout(scenarios: Sequence[Scenario], playings: Sequence[Playing], explorer: str = "") -> str:
    """The page about these playings.

    Args:
        scenarios: in the order of the page.
        playings: their results (:func:`dynpin.lab.playing.play_all`).
        explorer: the URL of the explorer with the same playings, for links to each story; empty for none.
    """
    environment = page_templates(Path(__file__).parent)
    environment.filters["code"] = _code
    agents = [name for name in AGENTS if any(playing.agent == name for playing in playings)]
    return environment.get_template("handout.html").render(
        agents=[AGENTS[name] for name in agents],
        chapters=[_chapter(scenario, agents, playings) for scenario in scenarios],
        explorer=explorer,
        forms=FORMS,
        light=LIGHT,
        dark=DARK,
        version=__version__,
    )


def _code(text: str) -> Markup:
    """The text, with the parts in backticks as code."""
    parts = text.split("`")
    return Markup().join(Markup("<code>{}</code>").format(part) if at % 2 else part for at, part in enumerate(parts))


def _chapter(scenario: Scenario, agents: Sequence[str], playings: Sequence[Playing]) -> _Chapter:
    found = {playing.agent: playing for playing in playings if playing.scenario == scenario.name}
    timelines = {agent: playing.timeline for agent, playing in found.items() if playing.timeline is not None}
    told = [found[agent].options if agent in found else {} for agent in agents]
    options = dict.fromkeys(name for outcomes in told for name in outcomes)
    return _Chapter(
        scenario=scenario,
        played=tuple(timelines),
        missing=tuple(playing.missing for playing in found.values() if playing.missing),
        cells=tuple(found.get(agent) for agent in agents),
        options={name: tuple(outcomes.get(name) for outcomes in told) for name in options},
        courses=_courses(scenario, timelines),
        differences=_differences(timelines),
    )


def _courses(scenario: Scenario, timelines: Mapping[str, Timeline]) -> tuple[_Course, ...]:
    """One course for all agents whose records are equal in every word, number and store."""
    alike: dict[str, list[str]] = {}
    for agent, timeline in timelines.items():
        record = timeline.named(json.dumps(timeline.to_dict() | {"agent": None}))
        alike.setdefault(record, []).append(agent)
    return tuple(_course(scenario, timelines[agents[0]], agents) for agents in alike.values())


def _course(scenario: Scenario, timeline: Timeline, agents: Sequence[str]) -> _Course:
    wide, description = draw_inline(timeline, scenario.title, agents)
    narrow, _ = draw_inline(timeline, scenario.title, agents, page=PHONE)
    return _Course(
        agents=tuple(agents),
        # ElementTree wrote these elements: every text in them is escaped.
        wide=tuple(Markup(part) for part in wide),  # noqa: S704
        narrow=tuple(Markup(part) for part in narrow),  # noqa: S704
        description=description,
        visits=tuple(
            _Visit(
                day(visit.at),
                visit.actor,
                visit.host or "",
                visit.outcome or "failed",
                timeline.named(visit.reason),
                visit.section,
            )
            for visit in timeline.visits
        ),
        remarks=tuple((timeline.named(remark.text), remark.holds) for remark in timeline.remarks),
    )


def _differences(timelines: Mapping[str, Timeline]) -> tuple[_Difference, ...]:
    """The visits whose outcome is not the same for all agents that made them."""
    visits: dict[tuple[str, str | None, int], dict[str, Event]] = {}
    for agent, timeline in timelines.items():
        made: Counter[tuple[str, str | None]] = Counter()
        for visit in timeline.visits:
            made[visit.actor, visit.host] += 1
            visits.setdefault((visit.actor, visit.host, made[visit.actor, visit.host]), {})[agent] = visit
    return tuple(
        _Difference(
            day(next(iter(by.values())).at),
            actor,
            host or "",
            tuple(by[agent].outcome if agent in by else None for agent in timelines),
        )
        for (actor, host, _), by in sorted(visits.items(), key=lambda each: next(iter(each[1].values())).at)
        if len({visit.outcome for visit in by.values()}) > 1
    )
