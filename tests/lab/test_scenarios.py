"""Every scenario with every user agent that it declares, on real sockets; what it asserts must hold."""

from __future__ import annotations

import pytest

from dynpin.lab.agents import AGENTS
from dynpin.lab.scenarios import Scenario, play, scenarios

PLAYS = [(scenario, agent) for scenario in scenarios().values() for agent in scenario.agents if agent in AGENTS]


@pytest.mark.parametrize(("scenario", "agent"), PLAYS, ids=lambda value: getattr(value, "name", value))
def test_what_the_scenario_asserts_holds(scenario: Scenario, agent: str) -> None:
    missing = AGENTS[agent].missing()
    if missing:
        pytest.skip(missing)
    timeline = play(scenario, agent)
    assert [remark.text for remark in timeline.remarks if not remark.holds] == []
    assert timeline.ok
    assert timeline.decisive is not None
