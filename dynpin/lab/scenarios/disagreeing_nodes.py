"""A load balancer with nodes that disagree: a client at another node has the wrong pins (RFC 7469 §2.5)."""

from __future__ import annotations

from dynpin.deploy.lint import Circumstances
from dynpin.lab.scenarios import scenario
from dynpin.lab.stage import Stage, days


@scenario(
    number=24,
    name="disagreeing-nodes",
    title="Nodes that disagree",
    story=(
        "Two servers behind a load balancer answer for the shop. Each has made its own key, and pins that key with a "
        "backup of its own. Alice reaches one of them, and the next day the other. Then both pin both keys."
    ),
    rfc=(
        "Pins belong to a host name: each server that answers for it must be able to show one of them (§2.2, §2.6), "
        "and the last Valid Pinning Header replaces the one before (§2.5). The RFC does not mention nodes."
    ),
    browsers=(
        "chromium-replaces",
        "chromium-why-not",
    ),
    dynpin=(
        "`dynpin check` asks every address of a name and `dynpin lint` compares what they send; one dynpin.toml serves "
        "all nodes; Policy takes several deployed chains, and pins the key of each."
    ),
    sources=("RFC 7469, April 2015, sections 2.5 and 2.6: the last header replaces the one before it.",),
)
def disagreeing_nodes(stage: Stage) -> None:
    """The story."""
    honest = stage.authority("Honest CA")
    one = stage.site("shop.test", honest, name="node 1", backups=1, max_age=days(60))
    two = stage.site("shop.test", honest, name="node 2", backups=1, max_age=days(60))
    alice, bob = stage.client("Alice", about="is led to node 1 first"), stage.client("Bob", about="to node 2")
    stage.leads("shop.test", one)
    stage.expect(alice.visits("shop.test"), "served")
    stage.leads("shop.test", two)
    stage.expect(bob.visits("shop.test"), "served")
    stage.later(days(1))
    stage.expect(alice.visits("shop.test"), "locked-out", decisive=True)
    nodes = Circumstances(nodes=(str(one.header), str(two.header)))
    stage.check("dynpin lint finds that the nodes disagree", "header-differs-between-nodes" in one.faults(nodes))

    stage.later(days(1))
    one.backups.append(two.key)
    two.backups.append(one.key)
    for node in (one, two):
        node.pins("pins the keys of both nodes")
    stage.leads("shop.test", one)
    stage.expect(alice.visits("shop.test"), "served")
    stage.leads("shop.test", two)
    for client in (alice, bob):
        stage.expect(client.visits("shop.test"), "served")
    stage.leads("shop.test", one)
    stage.expect(bob.visits("shop.test"), "served")
