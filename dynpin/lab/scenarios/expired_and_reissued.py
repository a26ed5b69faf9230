"""An expired certificate for a pinned key, and a pinned key that another CA certifies (RFC 7469 §2.4)."""

from __future__ import annotations

from dynpin.lab.scenarios import scenario
from dynpin.lab.stage import Stage, days


@scenario(
    number=22,
    name="expired-and-reissued",
    title="The certificate changes, the key stays",
    story=(
        "The bank forgets to renew. Its certificate expires, and the pinned key alone does not help. The next day "
        "another CA certifies the same key, at a third of the price, and all visitors can connect. Some weeks later "
        "somebody renews with the first CA again, and the tool makes a new key."
    ),
    rfc=(
        "The pin is for the public key, not for the certificate (§2.4), so any CA can certify the key again. Pin "
        "Validation is in addition to all other checks, and replaces none of them (§2.6)."
    ),
    browsers=("chromium-after-tls",),
    dynpin=(
        "Certificates are verified first, by the SSLContext, and pins are checked against the chain that passed. "
        "`dynpin keys new` made the backup's CSR with the key; `dynpin guard` refuses the key that the tool has made."
    ),
    sources=(
        "RFC 7469, April 2015, section 2.4 and appendix A.",
        "certbot makes a new key at each renewal unless it has the option --reuse-key (since 2018).",
    ),
)
def expired_and_reissued(stage: Stage) -> None:
    """The story. OpenSSL has only the machine's clock, so the certificate expired yesterday by that clock."""
    honest, other = stage.authority("Honest CA"), stage.authority("Other CA")
    bank = stage.site("bank.test", honest, backups=1, max_age=days(60))
    alice = stage.client("Alice")
    stage.expect(alice.visits(bank), "served")

    stage.later(days(30))
    bank.deploys(bank.certifies(bank.key, expired=True), "forgets to renew, and its certificate expires")
    stage.expect(alice.visits(bank), "failed")
    stage.check("the pins are still there", alice.knows(bank) is not None)

    stage.later(days(1))
    again = bank.certifies(bank.key, by=other)
    stage.check("dynpin guard allows the same key from another CA", bank.guard(again).ok)
    bank.deploys(again)
    stage.expect(alice.visits(bank), "served", decisive=True)

    stage.later(days(50))
    fresh = bank.certifies(bank.makes_key())
    stage.check("dynpin guard refuses the new key of the first CA", not bank.guard(fresh).ok)
    bank.deploys(fresh, "renews by Honest CA; the tool has made a new key")
    stage.expect(alice.visits(bank), "locked-out")
