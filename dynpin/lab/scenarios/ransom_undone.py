"""RansomPKP against clients that have noted the owner's root: the attacker's pins are replaced (RFC 7469 §4.5)."""

from __future__ import annotations

from dynpin.header import PublicKeyPins
from dynpin.lab.certificates import KeyPair
from dynpin.lab.clients import Client
from dynpin.lab.scenarios import scenario
from dynpin.lab.stage import Stage, days, minutes
from dynpin.lab.with_recovery import listed
from dynpin.recovery import Recovery


@scenario(
    number=27,
    name="ransom-undone",
    title="RansomPKP, undone by a signed list",
    story=(
        "Mallory controls the shop's server for an hour and pins her own keys, as in RansomPKP. Her header also names "
        "a root of hers, so that only she could let visitors in again. Alice had noted the shop's root before. Bob had "
        "been there before the shop had a root. Carol visits for the first time in that hour. Then the shop signs a "
        "list."
    ),
    rfc=(
        "A server that passes Pin Validation may set new pins (§2.5), at most for max-age (§4.1, §4.5). The RFC has no "
        "root. While a root is noted, no header changes it."
    ),
    browsers=(
        "chromium-cap",
        "firefox-cap",
        "wget2-no-cap",
    ),
    dynpin=(
        "A noted root cannot be changed by any header. A host without a noted root gets one only if all headers of "
        "seven days have named it. A client that visits the attacker first must forget the host, or follow the list "
        "from the start."
    ),
    sources=(
        "2016-08: Bryant Zadegan and Ryan Lester, 'Abusing Bleeding Edge Web Standards for AppSec Glory', DEF CON 24.",
        "The Update Framework, theupdateframework.io: offline keys survive a break-in at the server.",
    ),
    recovery="told",
)
def ransom_undone(stage: Stage) -> None:
    """The story."""
    honest = stage.authority("Honest CA")
    owner, hers = stage.signed_list("list.test"), stage.signed_list("mallory.test")
    shop = stage.site("shop.test", honest, backups=1, max_age=days(60))
    bob = stage.client("Bob", about="was here before the shop had a root")
    stage.expect(bob.visits(shop), "served")
    stage.later(days(1))
    shop.pins("names the root of its signed list in its header", recovery=owner.recovery)
    alice = stage.client("Alice", about="has noted the shop's root")
    stage.expect(alice.visits(shop), "served")

    stage.later(days(1))
    stage.appears("Mallory", "attacker", "controls the shop's server for an hour")
    key, spare = KeyPair("Mallory's key", "Mallory"), KeyPair("Mallory's spare key", "Mallory")
    stage.names(key, spare)
    shop.falls_to("Mallory", "breaks into the shop's server")
    true = shop.certificate
    header = PublicKeyPins((true.key.pin, key.pin), 31_536_000, recovery=hers.recovery)
    shop.sends(str(header), "now pins Mallory's key as its backup, and names a root of hers")
    for client in (alice, bob):
        stage.expect(client.visits(shop), "fooled")
    stage.later(minutes(30))
    shop.deploys(shop.certifies(key), "shows Mallory's key, certified by Honest CA: she answers as the shop")
    header = PublicKeyPins((key.pin, spare.pin), 31_536_000, recovery=hers.recovery)
    shop.sends(str(header), "now pins only Mallory's keys, and names her root")
    carol = stage.client("Carol", about="comes for the first time")
    for client in (alice, bob, carol):
        stage.expect(client.visits(shop), "fooled")
    if stage.has("recovery"):
        stage.check("Alice's root is the shop's, whatever the header says", _root(alice) == owner.recovery)
        stage.check("Bob does not accept Mallory's root: he knew the shop without one", _root(bob) is None)
        stage.check("Carol, who was never here before, has noted Mallory's root", _root(carol) == hers.recovery)

    stage.later(minutes(30))
    shop.is_freed("leaves, and asks for money")
    shop.deploys(true, "is under its owner's control again, and shows its own key")
    shop.pins("pins its own keys again")
    owner.signs(listed([shop]), stage.now)
    stage.tells("shop.test", "signs a list of its own keys")
    for client in (alice, bob, carol):
        stage.expect(client.visits(shop), "locked-out")
    stage.later(minutes(1))
    stage.expect(
        alice.visits(shop), "served", decisive=True, chromium="locked-out", firefox="locked-out", wget2="locked-out"
    )
    for client in (bob, carol):
        stage.expect(client.visits(shop), "locked-out")
    carol.forgets(shop)
    stage.expect(carol.visits(shop), "served")
    stage.later(days(61))
    stage.expect(bob.visits(shop), "served", wget2="locked-out")


def _root(client: Client) -> Recovery | None:
    """The root that a client has noted for the shop."""
    known = client.knows("shop.test")
    return None if known is None or known.recovery is None else known.recovery.standing
