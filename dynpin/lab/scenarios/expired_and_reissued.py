"""A certificate that has expired, its key kept; a kept key that another CA has certified (RFC 7469 §2.4)."""

from __future__ import annotations

from dynpin.lab.scenarios import scenario
from dynpin.lab.stage import Stage, days


@scenario(
    number=22,
    name="expired-and-reissued",
    title="The certificate changes, the key stays",
    story=(
        "The bank forgets to renew: its certificate expires, and the pinned key alone helps nobody. The next day "
        "another CA certifies the same key, at a third of the price, and everybody is back. Some weeks later somebody "
        "renews by the first CA again, with a key that the tool has made anew."
    ),
    rfc=(
        "What is pinned is the public key, not the certificate (§2.4): so that it can be certified again, by anybody. "
        "Pin Validation comes on top of every other check, and takes the place of none (§2.6)."
    ),
    browsers=("chromium-after-tls",),
    dynpin=(
        "Certificates are verified first, as the SSLContext says, and pins are held against the chain that passed. "
        "`dynpin keys new` made the backup's CSR with the key; `dynpin guard` refuses the key that the tool has made."
    ),
    sources=(
        "RFC 7469, April 2015, section 2.4 and appendix A.",
        "certbot makes a new key at each renewal unless it is told --reuse-key (since 2018).",
    ),
)
def expired_and_reissued(stage: Stage) -> None:
    """The story. OpenSSL has no clock but the machine's: what expires here has expired yesterday by that one."""
    honest, other = stage.authority("Honest CA"), stage.authority("Other CA")
    bank = stage.site("bank.test", honest, backups=1, max_age=days(60))
    alice = stage.client("Alice")
    stage.expect(alice.visits(bank), "served")

    stage.later(days(30))
    bank.deploys(bank.certifies(bank.key, expired=True), "forgets to renew, and its certificate expires")
    stage.expect(alice.visits(bank), "failed")
    stage.check("the pins are still held", alice.knows(bank) is not None)

    stage.later(days(1))
    again = bank.certifies(bank.key, by=other)
    stage.check("dynpin guard lets the same key pass under another CA", bank.guard(again).ok)
    bank.deploys(again)
    stage.expect(alice.visits(bank), "served", decisive=True)

    stage.later(days(50))
    fresh = bank.certifies(bank.makes_key())
    stage.check("dynpin guard refuses the new key of the first CA", not bank.guard(fresh).ok)
    bank.deploys(fresh, "renews by Honest CA; the tool has made a new key")
    stage.expect(alice.visits(bank), "locked-out")
