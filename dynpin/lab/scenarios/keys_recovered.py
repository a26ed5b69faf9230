"""All keys are lost, and a signed list lets everybody in again within a minute."""

from __future__ import annotations

from dynpin.lab.scenarios import scenario
from dynpin.lab.stage import Stage, days, minutes
from dynpin.lab.with_recovery import listed


@scenario(
    number=26,
    name="keys-recovered",
    title="All keys are lost, and a signed list heals it",
    story=(
        "The bank's header names a root for recovery; the root's keys are in a safe. Both keys of the server are lost. "
        "The bank deploys a new key that was never pinned, and signs a list with that key. Alice is refused once more. "
        "Her user agent fetches the list, and her next attempt passes. Erin's program follows the same list: it had "
        "the bank's pins before her first visit."
    ),
    rfc=(
        "A user agent ignores unknown directives (§2.1), so for others the two new ones mean nothing. In the RFC "
        "itself a lock-out lasts until max-age (§2.5, §4.5). Pins that come with a program are its §2.7."
    ),
    browsers=(
        "chromium-fatal",
        "firefox-fatal",
        "wget2-any",
    ),
    dynpin=(
        "`dynpin recovery init` makes the root, `dynpin recovery sign` the list, `dynpin recovery publish` the files. "
        "The client looks at the list in the background, at the earliest 30 seconds after the last look; "
        '`recovery="off"` prevents that. With `PinStore.follow` a program has the pins before the first visit.'
    ),
    sources=(
        "The Update Framework, theupdateframework.io: signed metadata over an untrusted transport.",
        "2017: Ivan Ristić, 'Fixing HPKP with Pin Revocation': every failure is a catastrophe, so there should be a "
        "way to revoke pins.",
    ),
    recovery="told",
)
def keys_recovered(stage: Stage) -> None:
    """The story."""
    honest, careless = stage.authority("Honest CA"), stage.authority("Careless CA")
    owner = stage.signed_list("list.test")
    bank = stage.site("bank.test", honest, backups=1, max_age=days(30), recovery=owner.recovery)
    owner.signs(listed([bank]), stage.now)
    alice = stage.client("Alice", about="notes the root with the pins")
    clients = [alice]
    if stage.has("recovery"):
        clients.append(stage.client("Bob", about='recovery="off"', recovery="off"))
    for client in clients:
        stage.expect(client.visits(bank), "served")
    stage.check("nobody has asked for the list", owner.requests == [])
    if stage.has("follows"):
        erin = stage.client("Erin", about="follows the list", follows=(owner.recovery.uri, owner.root))
        stage.tells("Erin", "has a program that comes with the bank's list")
        mallory = stage.attacker("Mallory", takes=bank, certificate_of=careless, only=[erin])
        stage.expect(erin.visits(bank), "protected", option="follow()")
        mallory.leaves()
        clients.append(erin)

    stage.later(days(10))
    bank.loses(bank.key, *bank.backups, text="loses both keys: they were on one disk")
    bank.backups = [bank.makes_key()]
    bank.deploys(bank.makes_key())
    bank.pins()
    for client in clients:
        stage.expect(client.visits(bank), "locked-out")
    owner.signs(listed([bank]), stage.now)
    stage.tells("bank.test", "signs a list of its new keys with the keys from the safe")

    stage.later(minutes(0.5))
    for client in clients:
        stage.expect(client.visits(bank), "locked-out")
    stage.later(minutes(0.5))
    stage.expect(
        alice.visits(bank), "served", decisive=True, chromium="locked-out", firefox="locked-out", wget2="locked-out"
    )
    for client in clients[1:]:
        if client.name == "Bob":
            stage.expect(client.visits(bank), "locked-out", option='recovery="off"')
        else:
            stage.expect(client.visits(bank), "served")

    # Agents without recovery get in when max-age has passed.
    stage.later(days(31))
    for client in clients:
        stage.expect(client.visits(bank), "served")
