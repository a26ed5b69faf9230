"""The first visit is the gap: its server is believed, and can lock out the true site (RFC 7469 §4.5)."""

from __future__ import annotations

from dynpin.deploy.lint import Circumstances
from dynpin.header import PublicKeyPins
from dynpin.lab.scenarios import scenario
from dynpin.lab.stage import Stage, days


@scenario(
    number=2,
    name="first-visit",
    title="The first visit meets the attacker",
    story=(
        "Alice opens her bank's page for the first time in Mallory's Wi-Fi. Mallory has a certificate of Careless CA, "
        "answers instead of the bank, and sends pins of her own keys. At home Alice's user agent now refuses the true "
        "bank. Bob had been there before, and is safe. So is Carol: her user agent is up to date, and came with the "
        "bank's pins."
    ),
    rfc=(
        "Pins are noted on first use, so a hostile server is believed on first use (§1). Hostile pins last at most for "
        "max-age, which user agents cap (§4.1). Preloaded pins close the gap (§2.7, §4.5)."
    ),
    browsers=(
        "chromium-cap",
        "firefox-cap",
        "wget2-no-cap",
        "chromium-why-not",
        "chromium-static",
        "firefox-static",
    ),
    dynpin=(
        "max-age is capped at 60 days; `dynpin hosts show` says when and where pins were noted, and `dynpin hosts "
        "forget` removes them; a store can start with static pins. Recovery does not help Alice: the root that she "
        "noted is Mallory's. A program that follows the bank's signed list has no unprotected first visit."
    ),
    recovery="cannot",
    sources=(
        "RFC 7469, April 2015, section 4.5: hostile pinning.",
        "2017-10: Chromium's intent to remove HPKP lists the risk of hostile pinning by a misissued certificate.",
    ),
)
def first_visit(stage: Stage) -> None:
    """The story."""
    honest, careless = stage.authority("Honest CA"), stage.authority("Careless CA")
    bank = stage.site("bank.test", honest, backups=1, max_age=days(30))
    bob, carol = stage.client("Bob", about="knows the bank"), stage.client("Carol", about="has static pins")
    alice, dave = stage.client("Alice", about="was never there"), stage.client("Dave", about="was never there")
    carol.comes_with(bank, *bank.keys)
    stage.expect(bob.visits(bank), "served")

    stage.later(days(1))
    mallory = stage.attacker("Mallory", takes=bank, certificate_of=careless)
    hostile = (mallory.key.pin, mallory.makes_key().pin)
    mallory.sends(str(PublicKeyPins(hostile, 31_536_000)), "sends pins of her own keys, for a year")
    inventory = Circumstances(held_keys=tuple(str(key.pin) for key in bank.keys))
    stage.check(
        "dynpin lint, with the bank's inventory, recognises that header as hostile",
        "hostile-pinning-by-misissued-certificate" in mallory.faults(inventory),
    )
    for spared in (bob, carol):
        stage.expect(spared.visits(bank), "protected")
    for victim in (alice, dave):
        first = victim.visits(bank)
        stage.expect(first, "fooled")
        stage.check(f"{victim.name} has Mallory's pins", first.noting == "noted" and first.pinned == hostile)

    stage.later(days(1))
    mallory.leaves()
    for spared in (bob, carol):
        stage.expect(spared.visits(bank), "served")
    stage.expect(alice.visits(bank), "locked-out", decisive=True)
    stage.expect(dave.visits(bank), "locked-out")
    alice.forgets(bank)
    healed = alice.visits(bank)
    stage.expect(healed, "served")
    stage.check("Alice has the bank's pins in the end", healed.pinned == tuple(key.pin for key in bank.keys))

    stage.later(days(60))
    # The header asked for a year. An agent that caps max-age at 60 days lets Dave in again.
    stage.expect(dave.visits(bank), "served", wget2="locked-out")
