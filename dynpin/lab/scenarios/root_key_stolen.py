"""One of three keys for a signed list is stolen, and the server that publishes the list: two of three must sign."""

from __future__ import annotations

from dynpin.lab.scenarios import scenario
from dynpin.lab.stage import Stage, days, minutes
from dynpin.lab.with_recovery import listed
from dynpin.pin_list import ListedHost


@scenario(
    number=28,
    name="root-key-stolen",
    title="One of three recovery keys is stolen",
    story=(
        "The bank's list must be signed by two of three keys. Mallory has stolen one of them, and the server that "
        "publishes the list. She answers as the bank, with a list that names her own key. The bank introduces new "
        "keys, signed by the two that are left. When it loses its server's keys later, the new ones let Alice in again."
    ),
    rfc=(
        "A Backup Pin's key is kept apart from the key in use (§4.3); so are the keys of a list. The RFC has no "
        "signature over pins, and unknown directives are ignored (§2.1)."
    ),
    browsers=(
        "chromium-fatal",
        "firefox-fatal",
        "wget2-any",
    ),
    dynpin=(
        "`dynpin recovery init --threshold 2 --of 3`; `dynpin recovery rotate-keys` makes new keys, which clients "
        "accept because the old ones have signed them."
    ),
    sources=(
        "2010: Justin Samuel, Nick Mathewson, Justin Cappos, Roger Dingledine, 'Survivable Key Compromise in Software "
        "Update Systems', CCS 2010.",
    ),
    recovery="told",
)
def root_key_stolen(stage: Stage) -> None:
    """The story."""
    honest, careless = stage.authority("Honest CA"), stage.authority("Careless CA")
    owner = stage.signed_list("list.test", threshold=2, of=3)
    bank = stage.site("bank.test", honest, backups=1, max_age=days(30), recovery=owner.recovery)
    owner.signs(listed([bank]), stage.now)
    alice = stage.client("Alice")
    stage.expect(alice.visits(bank), "served")

    stage.later(days(1))
    mallory = stage.attacker("Mallory", takes=bank, certificate_of=careless, about="has one key of the list")
    owner.is_forged({bank.host: ListedHost((mallory.key.pin, mallory.makes_key().pin))}, stage.now, key=1)
    stage.tells("Mallory", "publishes a list of her own keys, signed with the stolen key")
    stage.expect(alice.visits(bank), "protected")
    stage.later(minutes(1))
    stage.expect(alice.visits(bank), "protected")
    asked = any(path.endswith("targets.json") for path in owner.requests)
    stage.check(
        "the user agent has read the forged list" if asked else "the user agent reads no list",
        asked == stage.has("recovery"),
    )
    mallory.leaves()
    stage.expect(alice.visits(bank), "served")

    stage.later(days(1))
    owner.rotates_keys(stage.now, without=1)
    stage.tells("bank.test", "introduces new keys for the list, signed by the two that are left")
    stage.later(days(5))
    bank.loses(bank.key, *bank.backups)
    bank.backups = [bank.makes_key()]
    bank.deploys(bank.makes_key())
    owner.signs(listed([bank]), stage.now)
    stage.tells("bank.test", "signs a list of its new keys, with the new keys of the list")
    stage.expect(alice.visits(bank), "locked-out")
    stage.later(minutes(1))
    stage.expect(
        alice.visits(bank), "served", decisive=True, chromium="locked-out", firefox="locked-out", wget2="locked-out"
    )
