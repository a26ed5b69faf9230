"""The key is lost and the backup is used: nobody notices (RFC 7469 §4.3)."""

from __future__ import annotations

from dynpin.deploy.rotation import emergency
from dynpin.errors import PolicyError
from dynpin.lab.scenarios import scenario
from dynpin.lab.stage import Stage, days, hours


@scenario(
    number=4,
    name="backup-used",
    title="The key is lost, and the backup used",
    story=(
        "The bank's server burns down, and its key is lost. The backup key is in a safe. It is certified and deployed "
        "the same morning, and no visitor notices. Until there is a new backup key the bank sends no header, and the "
        "pins that its visitors have noted still keep Mallory out."
    ),
    rfc="User agents require a Backup Pin so that this works (§2.5); the operator keeps its key offline (§4.3).",
    browsers=(
        "chromium-valid",
        "firefox-valid",
        "wget2-any",
    ),
    dynpin=(
        "`dynpin rotate emergency key-lost` names the steps. Policy refuses a header without a backup; with "
        "on_invalid='silence' the server starts without one, since no header is better than an outage."
    ),
    sources=("RFC 7469, April 2015, section 4.3: backup pins.",),
)
def backup_used(stage: Stage) -> None:
    """The story."""
    honest, careless = stage.authority("Honest CA"), stage.authority("Careless CA")
    bank = stage.site("bank.test", honest, backups=1, max_age=days(30))
    alice = stage.client("Alice")
    stage.expect(alice.visits(bank), "served")

    stage.later(days(5))
    backup = bank.backups[0]
    bank.loses(bank.key, text="loses the key in use: the server has burnt down")
    steps = emergency("key-lost", bank.history, [backup.pin], stage.now)
    stage.check(
        "dynpin's steps: deploy the backup, send no header, make a new backup",
        # If the header names a recovery root, there is also a step to sign the list.
        [step.name for step in steps if step.name != "sign"] == ["deploy", "silence", "replenish"]
        and steps[0].key == backup.pin,
    )
    stage.check("the guard lets the backup pass", bank.guard(bank.certifies(backup)).ok)
    bank.deploys(backup)
    bank.backups.remove(backup)
    stage.refuses("dynpin makes no header without a new backup", bank.policy, PolicyError)
    stage.check("or starts without one, if told to", bank.policy(on_invalid="silence").header is None)
    bank.sends(None, "sends no header until there is a new backup")
    stage.expect(alice.visits(bank), "served", decisive=True)

    stage.later(hours(2))
    mallory = stage.attacker("Mallory", takes=bank, certificate_of=careless)
    stage.expect(alice.visits(bank), "protected")
    mallory.leaves()

    stage.later(days(1))
    bank.backups.append(bank.makes_key())
    bank.pins()
    renewed = alice.visits(bank)
    stage.expect(renewed, "served")
    stage.check("the new backup is noted", renewed.pinned == (backup.pin, bank.backups[0].pin))
