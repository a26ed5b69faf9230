"""Every scenario with every user agent that it names, on real sockets; its assertions must hold."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from dynpin.lab.agents import AGENTS, Machine, UserAgent
from dynpin.lab.agents.library import DynpinAgent
from dynpin.lab.claims import CLAIMS
from dynpin.lab.playing import Playing
from dynpin.lab.scenarios import Scenario, scenarios
from dynpin.lab.stage import set_stage

PLAYS = [(scenario, agent) for scenario in scenarios().values() for agent in scenario.agents]
each_scenario = pytest.mark.parametrize("scenario", scenarios().values(), ids=lambda scenario: scenario.name)


@pytest.mark.parametrize(("scenario", "agent"), PLAYS, ids=lambda value: getattr(value, "name", value))
def test_the_assertions_of_the_scenario_hold(
    scenario: Scenario, agent: str, played: dict[tuple[str, str], Playing]
) -> None:
    playing = played[scenario.name, agent]
    assert playing.missing == (AGENTS[agent].missing() or "")
    if playing.timeline is None:
        pytest.skip(playing.missing)
    timeline = playing.timeline
    assert [remark.text for remark in timeline.remarks if not remark.holds] == []
    assert timeline.ok
    assert playing.ok
    assert timeline.decisive in timeline.visits
    assert [event.at for event in timeline.events] == sorted(event.at for event in timeline.events)


@each_scenario
def test_a_user_agent_that_enforces_nothing_is_noticed(scenario: Scenario) -> None:
    # An assertion means something only if it fails without pinning.
    def install(machine: Machine) -> UserAgent:
        return DynpinAgent(replace(machine, pins=False))

    with set_stage(scenario.name, replace(AGENTS["dynpin"], install=install)) as stage:
        scenario.act(stage)
        assert not stage.timeline.ok


def test_the_scenarios_are_numbered_without_a_gap() -> None:
    assert [scenario.number for scenario in scenarios().values()] == list(range(1, 29))


@each_scenario
def test_a_scenario_tells_what_a_reader_needs(scenario: Scenario) -> None:
    for text in (scenario.title, scenario.story, scenario.rfc, scenario.dynpin, *scenario.sources):
        assert text.strip() == text != ""
        assert "  " not in text
    assert scenario.sources
    assert scenario.browsers
    assert "§" in scenario.rfc
    assert "dynpin" in scenario.agents
    assert set(scenario.agents) <= set(AGENTS)


def test_every_claim_has_a_source_and_is_in_the_docs_and_in_a_scenario() -> None:
    docs = (Path(__file__).parents[2] / "docs" / "how-to" / "lab.md").read_text()
    made = {claim.name for scenario in scenarios().values() for claim in scenario.browsers}
    made |= {claim.name for agent in AGENTS.values() for claim in agent.departs}
    assert made == set(CLAIMS)
    for claim in CLAIMS.values():
        assert claim.agent in AGENTS
        # A file and its function, or a published text and its date or place.
        assert re.search(
            r"\.(cc|h|cpp|js|c|py)\b.*, |/[a-z]+, \w|-[01][0-9]|support\.mozilla|seen at each", claim.source
        )
        assert f"| {claim.agent} | {claim.text} | {claim.source} |" in docs, claim.name
