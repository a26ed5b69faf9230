"""A rollback after a rotation: yesterday's key is a wrong key to whoever came today (RFC 7469 §4.3)."""

from __future__ import annotations

from dynpin.lab.scenarios import scenario
from dynpin.lab.stage import Stage, days, hours


@scenario(
    number=20,
    name="rollback",
    title="A rollback after a rotation",
    story=(
        "Two sites rotate by the book: each moves to its backup key. The bank drops the old pin from its header in the "
        "same step, the shop keeps it for now. An hour later something else is broken, and both roll back to "
        "yesterday's configuration, old key included. Alice came in that hour."
    ),
    rfc=(
        "A response replaces all pins that were held (§2.5). Operators are told to keep a Backup Pin for going forward "
        "(§4.3); that going back needs one too is not said."
    ),
    browsers=("chromium-replaces",),
    dynpin=(
        "`dynpin guard` in the deployment refuses the old key while clients hold pins without it; `dynpin rotate` "
        "drops the old pin only in a last step of its own, so that until then the way back is open."
    ),
    sources=("RFC 7469, April 2015, sections 2.5 and 4.3.",),
)
def rollback(stage: Stage) -> None:
    """The story."""
    honest = stage.authority("Honest CA")
    bank = stage.site("bank.test", honest, backups=1, max_age=days(30), about="drops the old pin at once")
    shop = stage.site("shop.test", honest, backups=1, max_age=days(30), about="keeps the old pin for now")
    alice = stage.client("Alice")
    for site in (bank, shop):
        stage.expect(alice.visits(site), "served")

    stage.later(days(20))
    before = {site: site.certificate for site in (bank, shop)}
    for site in (bank, shop):
        old = site.key
        site.deploys(site.backups.pop(0))
        site.backups = [site.makes_key()] if site is bank else [old, site.makes_key()]
        site.pins()
        stage.expect(alice.visits(site), "served")

    stage.later(hours(1))
    stage.check("dynpin guard refuses the bank's way back", not bank.guard(before[bank]).ok)
    stage.check("dynpin guard lets the shop go back", shop.guard(before[shop]).ok)
    for site in (bank, shop):
        site.deploys(before[site], "rolls back to the key of yesterday")
    stage.expect(alice.visits(bank), "locked-out", decisive=True)
    stage.expect(alice.visits(shop), "served")

    stage.later(days(1))
    bank.deploys(bank.keys[1], "goes forward again")
    stage.expect(alice.visits(bank), "served")
