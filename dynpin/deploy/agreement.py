"""Whether the nodes of a site agree, from their own entries in the shared state."""

from __future__ import annotations

from collections.abc import Iterator

from dynpin.durations import duration
from dynpin.errors import PolicyError
from dynpin.middleware.policy import Inventory
from dynpin.middleware.policy.shared import HEARD_EVERY, NodeState, SharedState, SiteDocument, is_noted

__all__ = ["SILENT_AFTER", "agreement", "disagreeing", "node_lines"]

# In seconds.
SILENT_AFTER = 3 * HEARD_EVERY


def agreement(inventory: Inventory) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """One line for each node, and the disagreements among them; both empty if the site shares no state."""
    if inventory.state is None:
        return (), ()
    state = SharedState(inventory.state)
    try:
        document = state.fetch()
    except PolicyError as error:
        return (), (f"it is not known whether the nodes agree: {error}",)
    return tuple(node_lines(document, state.now())), tuple(disagreeing(document, state.now()))


def node_lines(document: SiteDocument, now: float) -> Iterator[str]:
    """One line for each node: what it sends, since when, and when it last reported."""
    for name, node in sorted(document.nodes.items()):
        since, heard = _ago(node.since, now), _ago(node.seen_at, now)
        yield f"node {name}: {node.header or 'no header'}, for {since}; heard {heard} ago"


def disagreeing(document: SiteDocument, now: float) -> Iterator[str]:
    """The disagreements among the nodes, one sentence each; nothing if they agree.

    Args:
        document: the shared state.
        now: seconds since the epoch, UTC, by the collector's clock.
    """
    nodes = sorted(document.nodes.items())
    first = next(((name, node) for name, node in nodes if node.header is not None), None)
    for name, node in nodes:
        if node.doubled is not None:
            one, twin = node.doubled
            yield (
                f"two nodes have the name {name}: {one} and {twin}. Neither moves up. Give each its own name "
                f"([site] node, or DYNPIN_NODE); then:  dynpin nodes forget {name}"
            )
        if now - node.seen_at > SILENT_AFTER:
            yield (
                f"node {name} was not heard for {_ago(node.seen_at, now)}. Until you say that it is gone, it "
                f"counts as one that still sends its header:  dynpin nodes forget {name}"
            )
        if node.header is None:
            yield f"node {name} sends no header; its log says why"
        elif first is not None and _terms(node) != _terms(first[1]):
            yield f"node {name} sends another header than node {first[0]}: {node.header}"
        for other, shown in nodes:
            if other != name and not _accepts(node, shown):
                yield f"clients that noted the header of node {name} refuse node {other}, which shows another key"


def _terms(node: NodeState) -> object:
    """The terms of a header; the order of its pins does not matter."""
    header = node.policy
    return header and (header.name, frozenset(str(header).split("; ")))


def _accepts(node: NodeState, shown: NodeState) -> bool:
    policy = node.policy
    if policy is None or not is_noted(policy):
        return True
    pins = {str(pin) for pin in policy.pins}
    return all(not pins.isdisjoint(chain) for chain in shown.chains)


def _ago(then: float, now: float) -> str:
    return duration(max(0, round(now - then)))
