"""First use is the hole: whoever is met first is believed, and pins the true site out (RFC 7469 §4.5)."""

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
        "answers in the bank's stead, and sends pins of her own keys. At home Alice's user agent now refuses the true "
        "bank. Bob had been there before, and is spared; so is Carol, whose user agent came with the bank's pins."
    ),
    rfc=(
        "Pins are noted on first use, so a first use in hostile hands is believed (§1). Hostile pins last for max-age "
        "at most, which user agents cap (§4.1); preloaded pins close the hole (§2.7, §4.5)."
    ),
    browsers=(
        "Chromium and Firefox noted such pins as any others, for 60 days at most, and named hostile pinning among the "
        "reasons to give the header up; both had pins of well-known sites built in."
    ),
    dynpin=(
        "max-age is capped at 60 days; `dynpin hosts show` tells when and from where pins were noted, and `dynpin "
        "hosts forget` lets them go; stores can be seeded with static pins."
    ),
    sources=(
        "RFC 7469, April 2015, section 4.5: hostile pinning.",
        "2017-10: Chromium's intent to remove HPKP lists the risk of hostile pinning by a misissued certificate.",
    ),
)
def first_visit(stage: Stage) -> None:
    """The story."""
    honest, careless = stage.authority("Honest CA"), stage.authority("Careless CA")
    bank = stage.site("bank.test", honest, backups=1, max_age=days(30))
    bob = stage.client("Bob", about="knows the bank")
    stage.expect(bob.visits(bank), "served")

    stage.later(days(1))
    alice = stage.client("Alice", about="has never been there")
    mallory = stage.attacker("Mallory", takes=bank, certificate_of=careless)
    hostile = (mallory.key.pin, mallory.makes_key().pin)
    mallory.sends(str(PublicKeyPins(hostile, 31_536_000)), "sends pins of her own keys, for a year")
    carol = stage.client("Carol", about="has static pins")
    carol.comes_with(bank, *bank.keys)
    for spared in (bob, carol):
        stage.expect(spared.visits(bank), "protected")
    first = alice.visits(bank)
    stage.expect(first, "fooled")
    stage.check("Mallory's pins are noted", first.noting == "noted" and first.pinned == hostile)
    inventory = Circumstances(held_keys=tuple(str(key.pin) for key in bank.keys))
    stage.check(
        "dynpin lint, with the bank's inventory, knows the header for hostile",
        "hostile-pinning-by-misissued-certificate" in mallory.faults(inventory),
    )

    stage.later(days(1))
    mallory.leaves()
    stage.expect(alice.visits(bank), "locked-out", decisive=True)
    for spared in (bob, carol):
        stage.expect(spared.visits(bank), "served")

    stage.later(days(60))
    stage.expect(alice.visits(bank), "served", wget2="locked-out")
    alice.forgets(bank)
    stage.expect(alice.visits(bank), "served")
    known = alice.knows(bank)
    stage.check("the bank's own pins are noted at last", known is not None and known.pins[0] == bank.key.pin)
