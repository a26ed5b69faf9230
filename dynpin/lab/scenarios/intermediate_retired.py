"""A CA retires the pinned intermediate: the site's key stays the same, and still no pin matches (RFC 7469 §2.4)."""

from __future__ import annotations

from dynpin.lab.scenarios import scenario
from dynpin.lab.stage import Stage, days


@scenario(
    number=7,
    name="intermediate-retired",
    title="The CA retires the pinned intermediate",
    story=(
        "To avoid the care for keys, the shop follows a guide and pins the intermediate that signs its certificates, "
        "with the CA's spare intermediate as the backup. The CA then signs with a third one. The shop renews with its "
        "own key unchanged, and locks its customers out. The bakery has pinned its own keys."
    ),
    rfc="Any key of the chain can be pinned; the site does not decide which keys its CA uses (§2.4, §4).",
    browsers=(
        "chromium-valid",
        "chromium-why-not",
    ),
    dynpin=(
        "Policy pins the leaf unless told otherwise; `dynpin guard` warns of a chain that passes only because of its "
        "issuer, and refuses the new one; `dynpin lint` knows the pins of retired intermediates."
    ),
    sources=(
        "2016-03: Let's Encrypt replaced its intermediates X1 and X2 by X3 and X4, with the same keys: pins still "
        "matched. 2020-12: it replaced X3 by R3, with a new key: pins of X3 and X4 no longer matched.",
        "2024-03: Let's Encrypt made ten intermediates that take turns, which 'discourages' pinning them.",
        "2017-10: Chromium's intent to remove HPKP: it is hard to build a set of pins that is sure to work, since CAs "
        "change.",
    ),
)
def intermediate_retired(stage: Stage) -> None:
    """The story."""
    root = stage.authority("Honest CA")
    present, spare, third = (root.intermediate(f"Honest CA X{number}") for number in (1, 2, 3))
    stage.names(present.key, spare.key, third.key)
    shop = stage.site("shop.test", present, about="pins its CA's intermediates")
    shop.backups = [spare.key]
    shop.pins(max_age=days(60), pinned=1)
    bakery = stage.site("bakery.test", present, backups=1, max_age=days(60), about="pins its own keys")
    advice = shop.guard(shop.certificate).advice
    stage.check("the guard advises pinning the leaf", any("Pin the key of the leaf" in line for line in advice))
    alice = stage.client("Alice")
    stage.expect(alice.visits(shop), "served")
    stage.expect(alice.visits(bakery), "served")

    stage.later(days(45))
    stage.tells(root.name, "retires X1, and signs with X3 from now on")
    stage.check("the guard refuses the shop's chain", not shop.guard(shop.certifies(shop.key, by=third)).ok)
    stage.check("and allows the bakery's", bakery.guard(bakery.certifies(bakery.key, by=third)).ok)
    for site in (shop, bakery):
        site.deploys(site.certifies(site.key, by=third), "renews with the same key, certified by Honest CA X3")

    stage.later(days(1))
    stage.expect(alice.visits(shop), "locked-out", decisive=True)
    stage.expect(alice.visits(bakery), "served")
    from_x2 = shop.certifies(shop.key, by=spare)
    stage.check("a certificate of the spare intermediate would still pass", shop.guard(from_x2).ok)
