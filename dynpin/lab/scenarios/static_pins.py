"""Static pins in an app that is never updated, compared with pins noted at each visit (RFC 7469 §2.7)."""

from __future__ import annotations

from dynpin.lab.scenarios import scenario
from dynpin.lab.stage import Stage, days


@scenario(
    number=21,
    name="static-pins",
    title="Static pins that are never updated",
    story=(
        "Bob's user agent came with two pins built in, for as long as it accepts them. Carol's has the same two with "
        "an expiry date. Alice's notes the server's pins at each visit. The site rotates twice, correctly. Bob never "
        "installs an update."
    ),
    rfc=(
        "User agents may have pins built in, and decide how these and noted pins combine (§2.7). Noted pins renew "
        "themselves at each visit and expire by max-age (§2.3.3)."
    ),
    browsers=(
        "chromium-noted-first",
        "firefox-noted-first",
        "chromium-static",
        "firefox-static",
        "wget2-one-file",
    ),
    dynpin=(
        "`PinStore.pin` takes an expiry, and so does the import of Android's pin-set files; an error says that a pin "
        "is static. Noted pins follow every announced rotation. No signed list changes static pins: a program that "
        "follows a list has its pins before the first visit, and can recover."
    ),
    recovery="cannot",
    sources=(
        'Android\'s network security configuration: <pin-set expiration="…">, since Android 7 (2016).',
        "2016-09: the pins built into Firefox expired before the next release, and had no effect until then (Ryan "
        "Duff, 'Postmortem of the Firefox (and Tor Browser) Certificate Pinning Vulnerability Rabbit Hole').",
    ),
)
def static_pins(stage: Stage) -> None:
    """The story."""
    careless = stage.authority("Careless CA")
    api = stage.site("api.test", stage.authority("Honest CA"), backups=1, max_age=days(60))
    alice = stage.client("Alice", about="notes pins")
    bob = stage.client("Bob", about="static pins without a date")
    carol = stage.client("Carol", about="static pins for 80 days")
    bob.comes_with(api, *api.keys)
    carol.comes_with(api, *api.keys, lasting=days(80))
    everybody = (alice, bob, carol)
    for client in everybody:
        stage.expect(client.visits(api), "served")

    stage.later(days(45))
    api.rotates()
    for client in everybody:
        stage.expect(client.visits(api), "served")

    stage.later(days(45))
    stage.expect(alice.visits(api), "served")
    api.rotates()
    stage.expect(alice.visits(api), "served")
    # dynpin checks its static pins whatever headers say. Other agents noted Bob's pins of days 0 and 45 and use those.
    stage.expect(bob.visits(api), "locked-out", chromium="served", firefox="served", wget2="served", decisive=True)
    stage.expect(carol.visits(api), "served")
    stage.attacker("Mallory", takes=api, certificate_of=careless)
    for client in everybody:
        stage.expect(client.visits(api), "protected")
