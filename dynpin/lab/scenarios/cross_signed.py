"""A cross-signed root: two clients build different chains, and a pin may be in only one (RFC 7469 §2.6)."""

from __future__ import annotations

from dynpin.deploy.lint import Circumstances
from dynpin.errors import PolicyError
from dynpin.header import PublicKeyPins
from dynpin.lab.certificates import KeyPair
from dynpin.lab.scenarios import scenario
from dynpin.lab.stage import Stage, days


@scenario(
    number=18,
    name="cross-signed",
    title="A cross-signed root, and two trust stores",
    story=(
        "New CA is young. Old CA, which every device trusts, has signed New CA's root, so that its certificates work "
        "everywhere. Alice's old phone builds the chain up to Old CA; Bob's laptop ends it at New CA. The shop pins "
        "the root of Old CA. That is only in Alice's chain, and one day her phone gets an update too. The bakery pins "
        "its own key."
    ),
    rfc=(
        "Pins are checked against the chain that the client itself has built and verified, whatever the server sent "
        "(§2.6). To pin an issuer is to guess which chain that will be."
    ),
    browsers=(
        "chromium-valid",
        "wget2-any",
        "wget2-served",
        "chromium-why-not",
    ),
    dynpin=(
        "Policy pins the leaf's key unless told otherwise, and never a root that is not in the file; `dynpin lint` "
        "compares the served chain with the validated one; the collector calls such reports path variance."
    ),
    sources=(
        "2017-10-27: Chromium's intent to remove HPKP names trust stores that differ among its first reasons.",
        "2015-10: Let's Encrypt's first intermediates are cross-signed by IdenTrust's DST Root CA X3.",
        "2021-09-30: DST Root CA X3 expires; old devices and old OpenSSL still build the path to it.",
    ),
)
def cross_signed(stage: Stage) -> None:
    """The story."""
    old, new = stage.authority("Old CA"), stage.authority("New CA")
    crossed = new.cross_signed(by=old)
    shop = stage.site("shop.test", crossed, about="pins the root")
    backup = KeyPair("shop.test key 2", shop.name)
    stage.names(backup)
    header = PublicKeyPins((old.key.pin, backup.pin), max_age=60 * 86_400)
    shop.sends(str(header), "pins the key of Old CA, and a backup of its own, for 60 days")
    bakery = stage.site("bakery.test", crossed, backups=1, max_age=days(60), about="pins its own key")
    stage.refuses(
        "dynpin pins no root that is not served", lambda: shop.policy(max_age=days(60), pinned=2), PolicyError
    )

    roots = [old]
    alice = stage.client("Alice", trusts=roots, about="an old phone that trusts Old CA")
    bob = stage.client("Bob", trusts=[new], about="trusts New CA")
    for client in (alice, bob):
        for site in (shop, bakery):
            stage.expect(client.visits(site), "served")
    stage.check("Alice's phone has noted the shop's pins", alice.knows(shop) is not None)
    noted = bob.knows(shop) is not None
    stage.check("Bob's has not, except wget2, which ignores the chain", noted == (stage.agent.name == "wget2"))
    served, validated = (old, new), (new,)
    paths = Circumstances(
        served_chain_pins=(str(shop.key.pin), *(str(each.key.pin) for each in served)),
        validated_chain_pins=(str(shop.key.pin), *(str(each.key.pin) for each in validated)),
    )
    stage.check("dynpin lint finds the pin of a part of the paths", "partial-trust-path" in shop.faults(paths))

    stage.later(days(1))
    # Old CA's key is in the chain that Alice's phone has validated, but not in what the server sends.
    stage.expect(alice.visits(shop), "served", wget2="locked-out")
    stage.later(days(19))
    roots[:] = [new]
    stage.tells("Alice", "gets an update: the phone trusts New CA, and no longer Old CA")
    stage.expect(alice.visits(shop), "locked-out", decisive=True)
    stage.expect(bob.visits(shop), "served", wget2="locked-out")
    for client in (alice, bob):
        stage.expect(client.visits(bakery), "served")
