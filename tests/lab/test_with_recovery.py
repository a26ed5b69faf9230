"""The second ending of every scenario: with a noted root a lock-out ends, and no attack gets easier."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dynpin.lab.agents import AGENTS, Machine, UserAgent
from dynpin.lab.agents.library import DynpinAgent
from dynpin.lab.playing import Playing
from dynpin.lab.scenarios import Scenario, scenarios
from dynpin.lab.servers import Attacker, Site
from dynpin.lab.stage import WITH_RECOVERY, Stage, set_stage
from dynpin.lab.with_recovery import EndedWithRecoveryError, ending, listed

SECOND = [each for each in scenarios().values() if each.recovery != "told"]
HOPELESS = ("first-visit", "super-cookie", "static-pins")


@pytest.mark.parametrize("scenario", SECOND, ids=lambda scenario: scenario.name)
@pytest.mark.parametrize("agent", AGENTS)
def test_the_assertions_hold_with_recovery_too(scenario: Scenario, agent: str, playings: list[Playing]) -> None:
    found = [each for each in playings if (each.scenario, each.agent) == (scenario.name, agent)]
    if not found or found[0].missing:
        pytest.skip(found[0].missing if found else f"{scenario.name} is not played with {agent}")
    timeline = found[0].with_recovery
    first = found[0].timeline
    assert first is not None
    # An agent that ignores the list plays again only where somebody is locked out: else it would be the same.
    locked = any(visit.outcome == "locked-out" for visit in first.visits)
    assert (timeline is not None) == (agent == "dynpin" or locked)
    if timeline is None:
        return
    assert [remark.text for remark in timeline.remarks if not remark.holds] == []
    locked_out = [visit for visit in timeline.visits if visit.outcome == "locked-out"]
    last = timeline.options.get(WITH_RECOVERY)
    # The story ends at its first lock-out, within a minute of the signature.
    assert bool(locked_out) == (last is not None)
    if last is not None:
        signed, *_ = ending(timeline)
        assert last.at - signed.at <= 60
        assert last is timeline.decisive is timeline.events[-1]
        heals = agent == "dynpin" and scenario.name not in HOPELESS
        assert last.outcome == ("served" if heals else "locked-out")


def test_what_recovery_cannot_do_is_declared() -> None:
    assert tuple(each.name for each in SECOND if each.recovery == "cannot") == HOPELESS


def without_recovery(machine: Machine) -> UserAgent:
    return DynpinAgent(replace(machine, settings={**machine.settings, "recovery": "off"}))


@pytest.mark.parametrize("name", ["all-keys-lost", "third-party-subdomain", "ransom-pkp"])
def test_a_user_agent_that_does_not_recover_is_noticed(name: str) -> None:
    scenario = scenarios()[name]
    with set_stage(name, replace(AGENTS["dynpin"], install=without_recovery), recovery=True) as stage:
        with pytest.raises(EndedWithRecoveryError):
            scenario.act(stage)
        assert [remark.holds for remark in stage.timeline.remarks].count(False) == 1
        assert not stage.timeline.remarks[-1].holds


def test_a_header_names_the_root_of_its_sender() -> None:
    with set_stage("a test", AGENTS["dynpin"], recovery=True) as stage:
        bank, mallory = _bank(stage)
        mallory.sends(f'pin-sha256="{mallory.key.pin}"; max-age=9')
        found = [each.policy_sent.recovery for each in (bank, mallory) if each.policy_sent is not None]
        assert [None if each is None else each.uri for each in found] == ["http://recovery.test", "http://thief.test"]
        bank.falls_to("Mallory")
        bank.sends(f'pin-sha256="{mallory.key.pin}"; max-age=9')
        assert bank.policy_sent is not None
        assert bank.policy_sent.recovery == found[1]


def test_the_list_of_an_owner() -> None:
    with set_stage("a test", AGENTS["dynpin"]) as stage:
        honest = stage.authority("Honest CA")
        bank = stage.site("bank.test", honest, backups=1, max_age=60, include_subdomains=True)
        till = stage.site("pay.bank.test", honest, name="the till")
        node = stage.site("pay.bank.test", honest, name="its other node")
        evil = stage.site("*.evil.test", honest, name="evil.test", backups=1, max_age=60)
        found = listed([bank, till, node, evil])
        assert set(found) == {"bank.test", "pay.bank.test"}
        assert set(found["bank.test"].pins) == {key.pin for key in (bank.key, *bank.backups, till.key, node.key)}
        assert found["bank.test"].include_subdomains
        assert set(found["pay.bank.test"].pins) == {till.key.pin, node.key.pin}
        assert not found["pay.bank.test"].include_subdomains


def _bank(stage: Stage) -> tuple[Site, Attacker]:
    honest = stage.authority("Honest CA")
    bank = stage.site("bank.test", honest, backups=1, max_age=60)
    return bank, stage.attacker("Mallory", takes=bank)
