"""All keys are lost: nothing that the server sends lets its visitors in before max-age (RFC 7469 §4.3)."""

from __future__ import annotations

from dynpin.deploy.lint import Circumstances
from dynpin.deploy.rotation import emergency
from dynpin.lab.scenarios import scenario
from dynpin.lab.stage import Stage, days, minutes


@scenario(
    number=3,
    name="all-keys-lost",
    title="All keys are lost",
    story=(
        "The bank keeps its backup key on the server, beside the key in use, and the disk breaks. The bank makes a new "
        "key and gets a certificate within the hour. New visitors get in. Everybody who had been there before is "
        "locked out until the pins expire, and nothing that the bank sends can change that."
    ),
    rfc=(
        "The backup key pair is kept offline (§4.3). A header counts only on a connection that passed Pin Validation "
        "(§2.5), so even max-age=0 does not reach those who are locked out."
    ),
    browsers=(
        "chromium-fatal",
        "firefox-fatal",
        "chromium-forgets",
        "firefox-forgets",
    ),
    dynpin=(
        "`dynpin lint` warns of a backup key on the server; `dynpin rotate emergency` names the day on which the "
        "lock-out ends; the error tells the user which command forgets the pins."
    ),
    sources=(
        "2016-09: Ivan Ristić, 'Is HTTP Public Key Pinning Dead?'",
        "2017-08: Scott Helme, 'I'm giving up on HPKP': there is a term for it, HPKP suicide.",
    ),
)
def all_keys_lost(stage: Stage) -> None:
    """The story."""
    honest = stage.authority("Honest CA")
    bank = stage.site("bank.test", honest, backups=1, max_age=days(30))
    alice, bob = stage.client("Alice", about="visits often"), stage.client("Bob", about="was here once")
    stage.expect(alice.visits(bank), "served")
    stage.expect(bob.visits(bank), "served")
    on_the_server = Circumstances(backup_key_path="/etc/ssl/private/backup.key")
    stage.check(
        "dynpin lint warns of the backup key on the server",
        "backup-key-on-the-same-server" in bank.faults(on_the_server),
    )

    stage.later(days(10))
    stage.expect(alice.visits(bank), "served")
    bank.loses(bank.key, *bank.backups, text="loses both keys: they were on one disk")
    steps = emergency("key-lost", bank.history, [], stage.now)
    stage.check("dynpin has no step that lets them in at once", all(step.name != "deploy" for step in steps))
    bank.deploys(bank.makes_key())
    bank.pins("sends max-age=0, in vain", mode="unpin")
    carol = stage.client("Carol", about="is new")
    stage.expect(carol.visits(bank), "served")
    stage.expect(alice.visits(bank), "locked-out", decisive=True)
    stage.expect(bob.visits(bank), "locked-out")

    stage.later(days(21))
    stage.expect(bob.visits(bank), "served")
    stage.later(minutes((steps[-1].at - stage.now) / 60 - 1))
    stage.expect(alice.visits(bank), "locked-out")
    stage.later(minutes(2))
    stage.expect(alice.visits(bank), "served")
    stage.check("the lock-out ended in the minute that dynpin had named", steps[-1].name == "recover")
