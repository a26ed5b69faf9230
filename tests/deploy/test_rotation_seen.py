"""A step is done when it was seen: in the inventory, and at every node (RFC 7469 §2.3.1, §2.5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from dynpin import Pin, PublicKeyPins
from dynpin.deploy.nodes import NodeLook
from dynpin.deploy.rotation import (
    Deployed,
    History,
    NotSeen,
    Planned,
    Published,
    Sight,
    Stage,
    advance,
    disagreements,
    done,
    status,
)
from dynpin.deploy.rotation.sights import sight_of_node
from tests.deploy.test_rotation import CA, DAY, MONTH, NEW, NEXT, OLD, START, header, pin, pinned

OTHER = pin("other")
# The walk of a rotation from OLD to NEXT, with NEW in reserve: when each step may be done.
PUBLISH = pinned(OLD, NEW).with_event(Planned(START, NEXT, (NEW,)))
PUBLISHED_AT = START + DAY
DEPLOY = PUBLISH.with_event(Published(PUBLISHED_AT, header(OLD, NEXT, NEW)))
DEPLOYED_AT = PUBLISHED_AT + MONTH
RETIRE = DEPLOY.with_event(Deployed(DEPLOYED_AT, (NEXT, CA)))
RETIRED_AT = DEPLOYED_AT + MONTH
BRIDGE, FINAL = header(OLD, NEXT, NEW), header(NEXT, NEW)


def toml(sent: PublicKeyPins | None, *chains: Sequence[Pin]) -> Sight:
    return Sight("dynpin.toml", sent, tuple(map(tuple, chains)))


def node(sent: PublicKeyPins | None, *chain: Pin) -> Sight:
    return Sight("10.0.0.5:443", sent, (chain,), is_live=True)


WALK = [
    (PUBLISH, PUBLISHED_AT, (BRIDGE, (OLD, CA))),
    (DEPLOY, DEPLOYED_AT, (BRIDGE, (NEXT, CA))),
    (RETIRE, RETIRED_AT, (FINAL, (NEXT, CA))),
]


@pytest.mark.parametrize(("kept", "at", "seen"), WALK, ids=["publish", "deploy", "retire"])
def test_what_was_seen_is_recorded(kept: History, at: float, seen: tuple[PublicKeyPins, tuple[Pin, ...]]) -> None:
    sent, chain = seen
    for sights in ([toml(sent, chain)], [node(sent, *chain)], [toml(sent, chain), node(sent, *chain)]):
        after = done(kept, sights, at)
        assert (after.header, after.chain) == (sent, chain)
        assert not disagreements(after, toml(sent, chain), at)
        assert after.with_event(advance(kept, at)).header == sent


def test_a_step_that_is_early_or_none_is_refused_whatever_was_seen() -> None:
    with pytest.raises(ValueError, match="too early to deploy: not before"):
        done(DEPLOY, [toml(BRIDGE, (NEXT, CA))], DEPLOYED_AT - 1)
    with pytest.raises(ValueError, match="no rotation"):
        done(pinned(OLD, NEW), [toml(header(OLD, NEW), (OLD, CA))], START)


# What a place lacks: the history, the time, what it sends and shows, and what is said of it and what to do.
LACKS: dict[str, tuple[History, float, Sight, list[str]]] = {
    "the edit": (
        PUBLISH,
        PUBLISHED_AT,
        toml(header(OLD, NEW), (OLD,)),
        [f"does not name {NEXT}, the new key", "backups"],
    ),
    "a reload": (PUBLISH, PUBLISHED_AT, node(header(OLD, NEW), OLD), [f"does not name {NEXT}", "is it reloaded?"]),
    "a backup": (PUBLISH, PUBLISHED_AT, toml(header(OLD, NEXT, OTHER), (OLD,)), [f"{NEW}, a backup key of the plan"]),
    "the old pin": (PUBLISH, PUBLISHED_AT, toml(header(NEXT, NEW), (OLD,)), [f"{OLD}, the deployed key", "in keys"]),
    "a header": (PUBLISH, PUBLISHED_AT, node(None, OLD), ["no header is sent"]),
    "enforcement": (
        PUBLISH,
        PUBLISHED_AT,
        toml(PublicKeyPins((OLD, NEXT, NEW), report_only=True), (OLD,)),
        ["Public-Key-Pins-Report-Only is sent, and clients note nothing from it", "mode"],
    ),
    "any pinning": (PUBLISH, PUBLISHED_AT, toml(header(OLD, NEXT, NEW, max_age=0), (OLD,)), ["the header unpins"]),
    "patience": (PUBLISH, PUBLISHED_AT, toml(BRIDGE, (NEXT,)), [f"key {NEXT} locks out clients", "until 2026-12-25"]),
    "an answer": (
        PUBLISH,
        PUBLISHED_AT,
        Sight("10.0.0.5:443", None, (), is_live=True, failure="Connection refused"),
        ["10.0.0.5:443: Connection refused", "ask again"],
    ),
    "an inventory": (
        PUBLISH,
        PUBLISHED_AT,
        Sight("dynpin.toml", None, (), failure="it makes no header: no backup"),
        ["dynpin.toml: it makes no header", "dynpin lint"],
    ),
    "a Backup Pin": (
        PUBLISH,
        PUBLISHED_AT,
        node(BRIDGE, OLD, NEXT, NEW),
        ["clients do not note the header", "Backup Pin"],
    ),
    "the new chain": (
        DEPLOY,
        DEPLOYED_AT,
        toml(BRIDGE, (OLD, CA)),
        [f"{NEXT} is not deployed", f"is {OLD}", "in keys"],
    ),
    "the new chain at a node": (DEPLOY, DEPLOYED_AT, node(BRIDGE, OLD), [f"{NEXT} is not deployed", "reload it"]),
    "a way back": (
        DEPLOY,
        DEPLOYED_AT,
        toml(FINAL, (NEXT,)),
        [f"{OLD}, the deployed key", "Leave the old chain in backups"],
    ),
    "the last edit": (
        RETIRE,
        RETIRED_AT,
        toml(BRIDGE, (NEXT,)),
        [f"still names {OLD}, the old key", "keys and backups"],
    ),
    "the last reload": (RETIRE, RETIRED_AT, node(BRIDGE, NEXT), [f"still names {OLD}", "follow dynpin.toml"]),
    "the deployment": (RETIRE, RETIRED_AT, toml(FINAL, (OLD,)), [f"{NEXT} is not deployed: the deployed key is {OLD}"]),
}


@pytest.mark.parametrize("lacking", LACKS)
def test_what_was_not_seen_is_not_done(lacking: str) -> None:
    kept, at, sight, said = LACKS[lacking]
    right = next(each for each in WALK if each[0] is kept)[2]
    # One place that lacks it is enough, wherever the others stand.
    for sights in ([sight], [toml(right[0], right[1]), sight], [node(*right[:1], *right[1]), sight]):
        with pytest.raises(NotSeen) as refused:
            done(kept, sights, at)
        found = [str(each) for each in refused.value.missing if each.place == sight.place]
        assert all(any(words in line for line in found) for words in said), found


def test_nodes_that_differ_are_told_apart() -> None:
    odd = replace(node(header(OLD, NEXT, NEW, OTHER), OLD), place="10.0.0.6:443")
    with pytest.raises(NotSeen) as refused:
        done(PUBLISH, [toml(BRIDGE, (OLD,)), node(BRIDGE, OLD), odd], PUBLISHED_AT)
    [missing] = refused.value.missing
    assert (missing.place, f"it names {OTHER} too" in missing.what) == ("10.0.0.6:443", True)


def test_of_several_max_ages_the_longest_counts() -> None:
    """On a ramp nodes may stand at different heights: some client holds the longest."""
    longer = node(header(OLD, NEXT, NEW, max_age=2 * MONTH), OLD)
    after = done(PUBLISH, [toml(BRIDGE, (OLD,)), longer], PUBLISHED_AT)
    assert after.header is not None
    assert after.header.max_age == 2 * MONTH
    deployed = done(after, [toml(header(OLD, NEXT, NEW, max_age=2 * MONTH), (NEXT,))], DEPLOYED_AT)
    with pytest.raises(ValueError, match="too early"):
        done(deployed, [toml(FINAL, (NEXT,))], DEPLOYED_AT + 2 * MONTH - 1)


def test_beside_an_rsa_chain_a_node_may_show_the_other_one() -> None:
    both = toml(header(OLD, NEXT, NEW, OTHER), (NEXT, CA), (OTHER, CA))
    other = node(header(OLD, NEXT, NEW, OTHER), OTHER, CA)
    kept = DEPLOY.with_event(Published(PUBLISHED_AT, header(OLD, NEXT, NEW, OTHER)))
    assert done(kept, [both, other], DEPLOYED_AT).chain == (NEXT, CA)
    with pytest.raises(NotSeen, match="is not deployed"):
        done(kept, [both, replace(other, chains=((pin("stranger"), OTHER),))], DEPLOYED_AT)


def test_a_backup_that_was_exchanged_meanwhile_is_recorded_as_it_is_and_ends_the_rotation() -> None:
    after = done(RETIRE, [toml(header(NEXT, OTHER), (NEXT, CA))], RETIRED_AT)
    assert after.header == header(NEXT, OTHER)
    assert status(after, RETIRED_AT).stage is Stage.STEADY


# Where a history and an inventory do not say the same: both, and what is said of it.
DISAGREE: dict[str, tuple[History, Sight, list[str]]] = {
    "a pin more": (
        pinned(OLD, NEW),
        toml(header(OLD, NEW, NEXT), (OLD, CA)),
        [f"it names {NEXT} too", "rotate record"],
    ),
    "a pin less": (DEPLOY, toml(header(OLD, NEW), (OLD, CA)), [f"it lacks {NEXT}", "next --done"]),
    "another max-age": (
        pinned(OLD, NEW),
        toml(header(OLD, NEW, max_age=60), (OLD, CA)),
        ["its max-age is 60, not 2592000"],
    ),
    "subdomains": (
        pinned(OLD, NEW),
        toml(replace(header(OLD, NEW), include_subdomains=True), (OLD, CA)),
        ["it has includeSubDomains"],
    ),
    "another mode": (
        pinned(OLD, NEW),
        toml(PublicKeyPins((OLD, NEW), report_only=True), (OLD, CA)),
        ["it is Public-Key-Pins-Report-Only, not Public-Key-Pins"],
    ),
    "no header": (pinned(OLD, NEW), toml(None, (OLD, CA)), ["there is none"]),
    "none recorded": (History("www.example.com"), toml(header(OLD, NEW), (OLD, CA)), ["none is recorded"]),
    "another key that is pinned": (
        pinned(OLD, NEW),
        toml(header(OLD, NEW), (NEW, CA)),
        [f"{NEW}, and the history has {OLD}"],
    ),
    "another key": (
        pinned(OLD, NEW),
        toml(header(OLD, NEW), (NEXT, CA)),
        [f"key {NEXT} locks out clients", "emergency"],
    ),
    "another issuer that is pinned": (
        pinned(OLD, CA, NEW),
        toml(header(OLD, CA, NEW), (OLD, OTHER)),
        [f"the chain lacks {CA}"],
    ),
    "the old pin dropped early": (RETIRE, toml(FINAL, (NEXT, CA)), [f"it lacks {OLD}", "a roll-back needs it"]),
    "what cannot be seen": (
        pinned(OLD, NEW),
        Sight("dynpin.toml", None, (), failure="tls/new.pem cannot be read"),
        ["tls/new.pem cannot be read", "dynpin lint"],
    ),
}


@pytest.mark.parametrize("case", DISAGREE)
def test_a_history_and_an_inventory_that_disagree(case: str) -> None:
    kept, sight, said = DISAGREE[case]
    at = max((event.at for event in kept.events), default=START) + DAY
    found = [str(each) for each in disagreements(kept, sight, at)]
    assert all(any(words in line for line in found) for words in said), found


def test_an_issuer_that_is_not_pinned_may_change() -> None:
    assert not disagreements(pinned(OLD, NEW), toml(header(OLD, NEW), (OLD, OTHER)), START)


def test_a_node_s_answer_as_clients_take_it() -> None:
    look = NodeLook("2001:db8::5", 443, headers=(("public-key-pins", str(BRIDGE)), ("Public-Key-Pins", "second")))
    assert sight_of_node(look).header == BRIDGE  # §2.3.1: the first field counts
    assert sight_of_node(look).place == "[2001:db8::5]:443"
    report_only = sight_of_node(replace(look, headers=(("Public-Key-Pins-Report-Only", str(BRIDGE)),))).header
    assert report_only is not None
    assert report_only.report_only
    ignored = sight_of_node(replace(look, headers=(("Public-Key-Pins", 'pin-sha256="x"'),)))
    assert "clients ignore its header" in (ignored.failure or "")
    assert sight_of_node(replace(look, failure="no answer in time")).failure == "no answer in time"
