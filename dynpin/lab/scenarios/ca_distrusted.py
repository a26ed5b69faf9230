"""A pinned CA is distrusted: its chain is refused without pins, every other chain because of them (RFC 7469 §4.3)."""

from __future__ import annotations

from dynpin.deploy.rotation import emergency
from dynpin.lab.scenarios import scenario
from dynpin.lab.stage import Stage, days


@scenario(
    number=8,
    name="ca-distrusted",
    title="The pinned CA is distrusted",
    story=(
        "The shop pins two intermediates of Big CA, the second one as its backup. Big CA is caught signing false "
        "certificates, and browsers remove it. Now the shop's chain is refused because of its root, and a certificate "
        "from another CA is refused because of the pins. The bakery pins its own keys, and has one of them certified "
        "by another CA."
    ),
    rfc=(
        "The chain must be trusted, and contain a pinned key (§2.6). A Backup Pin is for a key of the operator's own, "
        "which any CA can certify (§4.3)."
    ),
    browsers=(
        "chromium-after-tls",
        "chromium-fatal",
    ),
    dynpin=(
        "Policy pins the leaf unless told otherwise; `dynpin rotate emergency ca-distrusted` lets another CA certify "
        "the same key; `dynpin lint` knows the pins of CAs that were distrusted."
    ),
    sources=(
        "2011-09: every browser dropped DigiNotar.",
        "2016-10: Mozilla and Chrome announced to drop WoSign and StartCom; 2017: Chrome 56 to 61 did, step by step.",
        "2018: Chrome 66 dropped Symantec's certificates of before June 2016, and Chrome 70 all of them.",
    ),
)
def ca_distrusted(stage: Stage) -> None:
    """The story."""
    big, other = stage.authority("Big CA"), stage.authority("Other CA")
    first, second = big.intermediate("Big CA G1"), big.intermediate("Big CA G2")
    stage.names(first.key, second.key)
    shop = stage.site("shop.test", first, about="pins Big CA")
    shop.backups = [second.key]
    shop.pins(max_age=days(60), pinned=1)
    bakery = stage.site("bakery.test", first, backups=1, max_age=days(60), about="pins its own keys")
    alice = stage.client("Alice")
    stage.expect(alice.visits(shop), "served")
    stage.expect(alice.visits(bakery), "served")

    stage.later(days(10))
    alice.distrusts(big)
    stage.expect(alice.visits(shop), "failed")
    stage.expect(alice.visits(bakery), "failed")

    stage.later(days(1))
    steps = emergency("ca-distrusted", bakery.history, [bakery.key.pin], stage.now)
    stage.check("dynpin lets another CA certify the bakery's key", steps[0].key == bakery.key.pin)
    stage.check("the guard refuses that for the shop", not shop.guard(shop.certifies(shop.key, by=other)).ok)
    for site in (shop, bakery):
        site.deploys(site.certifies(site.key, by=other))
    stage.expect(alice.visits(shop), "locked-out", decisive=True)
    stage.expect(alice.visits(bakery), "served")

    stage.later(days(50))
    stage.expect(alice.visits(shop), "served")
