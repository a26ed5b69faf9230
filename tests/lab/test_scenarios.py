"""Every scenario with every user agent that it declares, on real sockets; what it asserts must hold."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dynpin.lab.agents import AGENTS, Machine, UserAgent
from dynpin.lab.agents.library import DynpinAgent
from dynpin.lab.scenarios import Scenario, play, scenarios
from dynpin.lab.stage import set_stage

PLAYS = [(scenario, agent) for scenario in scenarios().values() for agent in scenario.agents]
each_scenario = pytest.mark.parametrize("scenario", scenarios().values(), ids=lambda scenario: scenario.name)


@pytest.mark.parametrize(("scenario", "agent"), PLAYS, ids=lambda value: getattr(value, "name", value))
def test_what_the_scenario_asserts_holds(scenario: Scenario, agent: str) -> None:
    missing = AGENTS[agent].missing()
    if missing:
        pytest.skip(missing)
    timeline = play(scenario, agent)
    assert [remark.text for remark in timeline.remarks if not remark.holds] == []
    assert timeline.ok
    assert timeline.decisive in timeline.visits
    assert [event.at for event in timeline.events] == sorted(event.at for event in timeline.events)


@each_scenario
def test_a_user_agent_that_enforces_nothing_is_noticed(scenario: Scenario) -> None:
    # What a scenario asserts means something only if it fails where pinning does.
    def install(machine: Machine) -> UserAgent:
        return DynpinAgent(replace(machine, pins=False))

    with set_stage(scenario.name, replace(AGENTS["dynpin"], install=install)) as stage:
        scenario.act(stage)
        assert not stage.timeline.ok


def test_the_scenarios_are_numbered_without_a_gap() -> None:
    assert [scenario.number for scenario in scenarios().values()] == list(range(1, 25))


@each_scenario
def test_a_scenario_tells_what_a_reader_needs(scenario: Scenario) -> None:
    for text in (scenario.title, scenario.story, scenario.rfc, scenario.browsers, scenario.dynpin, *scenario.sources):
        assert text.strip() == text != ""
        assert "  " not in text
    assert scenario.sources
    assert "§" in scenario.rfc
    assert "dynpin" in scenario.agents
    assert set(scenario.agents) <= set(AGENTS)
