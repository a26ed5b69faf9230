"""RansomPKP: an attacker who controls the server for an hour can lock out visitors for months (RFC 7469 §4.5)."""

from __future__ import annotations

from dynpin.deploy.lint import Circumstances
from dynpin.header import PublicKeyPins
from dynpin.lab.certificates import KeyPair
from dynpin.lab.scenarios import scenario
from dynpin.lab.stage import Stage, days, minutes


@scenario(
    number=11,
    name="ransom-pkp",
    title="RansomPKP",
    story=(
        "Mallory breaks into the shop's server for an hour. She adds the pin of a key of hers beside the shop's. When "
        "visitors have noted it, she deploys her key, with a certificate that she gets because she answers as the "
        "shop, and pins only her own keys. Then she leaves, and sells the key for money: without it every visitor of "
        "that hour is locked out."
    ),
    rfc=(
        "A server that passes Pin Validation may set new pins (§2.5), and so may an attacker who controls it. The "
        "damage lasts at most for max-age, which user agents may cap (§4.1, §4.5)."
    ),
    browsers=(
        "chromium-cap",
        "firefox-cap",
        "wget2-no-cap",
        "chromium-why-not",
    ),
    dynpin=(
        "`dynpin lint` and `dynpin check` report a pin that is in no inventory, within the hour if they run; clients "
        "cap at 60 days, show when and where a pin was noted, and forget it on command."
    ),
    sources=(
        "2016-08: Bryant Zadegan and Ryan Lester, 'Abusing Bleeding Edge Web Standards for AppSec Glory', DEF CON 24.",
        "2016-08: Scott Helme, 'Using security features to do bad things'.",
    ),
)
def ransom_pkp(stage: Stage) -> None:
    """The story."""
    honest = stage.authority("Honest CA")
    shop = stage.site("shop.test", honest, backups=1, max_age=days(30))
    alice, bob = stage.client("Alice", about="visits often"), stage.client("Bob", about="was here the day before")
    for client in (alice, bob):
        stage.expect(client.visits(shop), "served")

    stage.later(days(1))
    stage.appears("Mallory", "attacker", "controls the shop's server for an hour")
    hers, spare = KeyPair("Mallory's key", "Mallory"), KeyPair("Mallory's spare key", "Mallory")
    stage.names(hers, spare)
    shop.falls_to("Mallory", "breaks into the shop's server")
    true = shop.certificate
    year = 31_536_000
    inventory = Circumstances(held_keys=tuple(str(key.pin) for key in shop.keys))
    shop.sends(str(PublicKeyPins((true.key.pin, hers.pin), year)), "now pins Mallory's key as its backup, for a year")
    stage.expect(alice.visits(shop), "fooled")
    stage.check(
        "dynpin lint, with the shop's inventory, reports it at once",
        "hostile-pinning-ransompkp" in shop.faults(inventory),
    )

    stage.later(minutes(30))
    shop.deploys(shop.certifies(hers), "shows Mallory's key, certified by Honest CA: she answers as the shop")
    shop.sends(str(PublicKeyPins((hers.pin, spare.pin), year)), "now pins only Mallory's keys, for a year")
    carol = stage.client("Carol", about="comes for the first time")
    stage.expect(alice.visits(shop), "fooled")
    stage.expect(carol.visits(shop), "fooled")
    stage.expect(bob.visits(shop), "protected")

    stage.later(minutes(30))
    shop.is_freed("leaves, and asks for money")
    shop.deploys(true, "is under its owner's control again, and shows its own key")
    shop.pins("pins its own keys again")
    stage.expect(bob.visits(shop), "served")
    stage.expect(alice.visits(shop), "locked-out", decisive=True)
    stage.expect(carol.visits(shop), "locked-out")
    carol.forgets(shop)
    stage.expect(carol.visits(shop), "served")

    stage.later(days(61))
    stage.expect(alice.visits(shop), "served", wget2="locked-out")
