"""Whether the nodes of a site agree, by what they say of themselves in the state that they share."""

from __future__ import annotations

from collections.abc import Iterator

from dynpin.durations import duration
from dynpin.errors import PolicyError
from dynpin.middleware.policy import Inventory
from dynpin.middleware.policy.shared import HEARD_EVERY, NodeState, SharedState, SiteDocument

__all__ = ["SILENT_AFTER", "agreement", "disagreeing", "node_lines"]

# In seconds.
SILENT_AFTER = 3 * HEARD_EVERY


def agreement(inventory: Inventory) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The line of each node, and what is wrong with them together; empty if the site shares no state."""
    if inventory.state is None:
        return (), ()
    state = SharedState(inventory.state)
    try:
        document = state.fetch()
    except PolicyError as error:
        return (), (f"whether the nodes agree is not known: {error}",)
    return tuple(node_lines(document, state.now())), tuple(disagreeing(document, state.now()))


def node_lines(document: SiteDocument, now: float) -> Iterator[str]:
    """A line for each node: what it sends, since when, and when it was heard last."""
    for name, node in sorted(document.nodes.items()):
        since, heard = _ago(node.since, now), _ago(node.seen_at, now)
        yield f"node {name}: {node.header or 'no header'}, for {since}; heard {heard} ago"


def disagreeing(document: SiteDocument, now: float) -> Iterator[str]:
    """What is wrong with the nodes together, a sentence each; nothing where they agree.

    Args:
        document: what they share.
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
                f"node {name} was not heard for {_ago(node.seen_at, now)}. Until somebody says that it is gone, it "
                f"counts as one that still sends its header:  dynpin nodes forget {name}"
            )
        if node.header is None:
            yield f"node {name} sends no header; its log says why"
        elif first is not None and _terms(node) != _terms(first[1]):
            yield f"node {name} sends another header than node {first[0]}: {node.header}"
        for other, shown in nodes:
            if other != name and not _accepts(node, shown):
                yield f"whoever has noted the header of node {name} is refused by node {other}, which shows another key"


def _terms(node: NodeState) -> object:
    """What a header says; the order of its pins says nothing."""
    header = node.policy
    return header and (header.name, frozenset(str(header).split("; ")))


def _accepts(node: NodeState, shown: NodeState) -> bool:
    policy = node.policy
    if policy is None or policy.report_only or not policy.max_age:
        return True
    pins = {str(pin) for pin in policy.pins}
    return all(not pins.isdisjoint(chain) for chain in shown.chains)


def _ago(then: float, now: float) -> str:
    return duration(max(0, round(now - then)))
