"""The fake Wi-Fi hotspot with a certificate of a careless CA, visited with and without pins (RFC 7469 §1, §2.6)."""

from __future__ import annotations

from dynpin.lab.scenarios import scenario
from dynpin.lab.stage import Stage, days


@scenario(
    number=1,
    name="hotspot",
    title="The fake Wi-Fi hotspot",
    story=(
        "Mallory runs the free Wi-Fi of a café and leads bank.test to a server of her own. Careless CA, which every "
        "device trusts, has given her a certificate in the bank's name. Alice's user agent remembers the bank's pins "
        "from an earlier visit; Bob's knows nothing of pinning."
    ),
    rfc=(
        "Any trusted CA can vouch for any name (§1). Pin Validation runs while TLS is set up, before an HTTP "
        "conversation begins; if no pinned key is in the chain, the user cannot skip the error (§2.6)."
    ),
    browsers=(
        "chromium-fatal",
        "firefox-fatal",
    ),
    dynpin="The handshake raises PinValidationError before a byte of the request is written.",
    sources=(
        "2011: DigiNotar was broken into, and its certificate for *.google.com was used against people in Iran; Chrome "
        "had Google's pins built in and showed a warning.",
        "2015-03: a proxy at MCS Holdings, a customer of CNNIC, made certificates for Google's domains; Chrome's "
        "built-in pins revealed them.",
    ),
)
def hotspot(stage: Stage) -> None:
    """The story."""
    honest, careless = stage.authority("Honest CA"), stage.authority("Careless CA")
    bank = stage.site("bank.test", honest, backups=1, max_age=days(30))
    alice, bob = stage.client("Alice"), stage.client("Bob", pins=False)
    stage.expect(alice.visits(bank), "served")
    stage.expect(bob.visits(bank), "served")

    stage.later(days(1))
    mallory = stage.attacker("Mallory", takes=bank, certificate_of=careless, about="runs the Wi-Fi of the café")
    fooled = bob.visits(bank)
    stage.expect(fooled, "fooled")
    stage.check("Mallory has read Bob's token", b"the-token-of-bob" in mallory.server.received)
    protected = alice.visits(bank)
    stage.expect(protected, "protected", decisive=True)
    stage.check("Mallory has read nothing of Alice", b"alice" not in mallory.server.received)

    stage.later(days(1))
    mallory.leaves()
    stage.expect(alice.visits(bank), "served")
