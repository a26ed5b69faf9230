"""Play scenarios with user agents, one or all of them, and collect the results."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass
from html import escape

from dynpin.lab.agents import AGENTS
from dynpin.lab.picture import Format, draw
from dynpin.lab.scenarios import Scenario, play, scenarios
from dynpin.lab.stage import WITH_RECOVERY
from dynpin.lab.timeline import Outcome, Timeline
from dynpin.lab.workers import shared

__all__ = ["Playing", "play_all", "play_one"]


@dataclass(frozen=True, slots=True)
class Playing:
    """The result of a scenario with one user agent.

    Attributes:
        scenario: the scenario's name.
        agent: the user agent's name.
        timeline: the record; None if it could not be played.
        missing: why it could not be played here, in words; empty if it was played.
        with_recovery: the record of its second ending (:mod:`dynpin.lab.with_recovery`); None if it has none, or if
            that could not be played.
    """

    scenario: str
    agent: str
    timeline: Timeline | None
    missing: str = ""
    with_recovery: Timeline | None = None

    @property
    def ok(self) -> bool:
        """Whether all assertions of the scenario hold. A scenario that was not played has none."""
        return all(timeline is None or timeline.ok for timeline in (self.timeline, self.with_recovery))

    @property
    def outcome(self) -> Outcome | None:
        """The outcome of the decisive visit; None if it was not played."""
        decisive = self.timeline.decisive if self.timeline else None
        return decisive.outcome if decisive else None

    @property
    def options(self) -> dict[str, Outcome | None]:
        """The outcome with each option of a user, by the option's name, and with the second ending of a lock-out."""
        options = dict(self.timeline.options) if self.timeline else {}
        if self.with_recovery is not None and WITH_RECOVERY in self.with_recovery.options:
            options = {WITH_RECOVERY: self.with_recovery.options[WITH_RECOVERY]} | options
        return {name: visit.outcome for name, visit in options.items()}

    def to_dict(self) -> dict[str, object]:
        """The result as a JSON object, with the record if there is one."""
        told: dict[str, object] = {
            "scenario": self.scenario,
            "agent": self.agent,
            "ok": self.ok,
            "outcome": self.outcome,
        }
        if self.timeline is None:
            return told | {"missing": self.missing}
        second = None if self.with_recovery is None else self.with_recovery.to_dict()
        return told | {"timeline": self.timeline.to_dict(), "with_recovery": second}

    def picture(self, form: Format = "svg", *, dark: bool = False) -> bytes:
        """The timeline as a picture file.

        Raises:
            ModuleNotFoundError: `form` is ``"png"`` or ``"pdf"``, and matplotlib is not installed.
            ValueError: it could not be played, so there is no picture.
        """
        if self.timeline is None:
            raise ValueError(f"{self.scenario} could not be played with {self.agent}: {self.missing}")
        return draw(self.timeline, self._title, form, dark=dark)

    @property
    def _title(self) -> str:
        found = scenarios().get(self.scenario)
        return self.scenario if found is None else found.title

    def _repr_svg_(self) -> str | None:
        """The picture, for a notebook; None if there is none."""
        return None if self.timeline is None else self.picture().decode()

    def _repr_html_(self) -> str:
        """The picture with its title, and its events in a fold, for a notebook."""
        title = f"<h4>{escape(self._title)}, with {escape(self.agent)}</h4>"
        if self.timeline is None:
            return f"{title}<p>Not played here: {escape(self.missing)}.</p>"
        events = f"<details><summary>Events</summary>{self.timeline.to_html()}</details>"
        return f"{title}{self.picture().decode()}{events}"


def play_one(scenario: Scenario, agent: str) -> Playing:
    """Play a scenario with a user agent, and its second ending if this machine can play it."""
    # The story tells what servers and clients would log.
    logging.getLogger("dynpin").addHandler(logging.NullHandler())
    missing = AGENTS[agent].missing()
    if missing is not None:
        return Playing(scenario.name, agent, None, missing)
    timeline = play(scenario, agent)
    # An agent without recovery ignores the list: where it locks nobody out, a second playing would be the same.
    alike = "recovery" not in AGENTS[agent].options and all(visit.outcome != "locked-out" for visit in timeline.visits)
    second = None if scenario.recovery == "told" or alike else play(scenario, agent, recovery=True)
    return Playing(scenario.name, agent, timeline, with_recovery=second)


def play_all(
    chosen: Iterable[Scenario],
    agents: Iterable[str] | None = None,
    *,
    processes: int | None = None,
    progress: Callable[[], object] | None = None,
) -> list[Playing]:
    """Play scenarios with each user agent that they name.

    Args:
        chosen: the scenarios.
        agents: only these user agents; None for all.
        processes: the most processes at the same time; None for the number of processors.
        progress: called after each scenario and agent.

    Returns:
        the results in the order of the scenarios, and of the agents in each.
    """
    wanted = None if agents is None else set(agents)
    order = [
        (scenario.name, agent) for scenario in chosen for agent in scenario.agents if wanted is None or agent in wanted
    ]
    count = min(processes or os.cpu_count() or 1, max(1, len(order)))
    found: dict[tuple[str, str], Playing] = {}
    with closing(_played(order, count)) as played:
        for playing in played:
            found[playing.scenario, playing.agent] = playing
            if progress is not None:
                progress()
    return [found[place] for place in order]


def _played(order: list[tuple[str, str]], processes: int) -> Generator[Playing]:
    if processes == 1:
        yield from map(_play, order)
    else:
        yield from shared(_play, order, processes)


def _play(place: tuple[str, str]) -> Playing:
    name, agent = place
    return play_one(scenarios()[name], agent)
