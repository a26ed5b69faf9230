"""A rollback after a rotation: yesterday's key is wrong for a visitor of today (RFC 7469 §4.3)."""

from __future__ import annotations

from dynpin.lab.scenarios import scenario
from dynpin.lab.stage import Stage, days, hours


@scenario(
    number=20,
    name="rollback",
    title="A rollback after a rotation",
    story=(
        "Two sites rotate correctly: each moves to its backup key. The bank removes the old pin from its header in the "
        "same step; the shop keeps it for now. An hour later something else breaks, and both roll back to yesterday's "
        "configuration, with the old key. Alice visited both in that hour."
    ),
    rfc=(
        "A response replaces all noted pins (§2.5). Operators should have a Backup Pin for the next key (§4.3). The "
        "RFC does not say that a rollback needs a pin too."
    ),
    browsers=("chromium-replaces",),
    dynpin=(
        "`dynpin guard` in the deployment refuses the old key while clients have pins without it; `dynpin rotate` "
        "removes the old pin only in a last step of its own, so that a rollback is possible until then."
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
    stage.check("dynpin guard refuses the bank's rollback", not bank.guard(before[bank]).ok)
    stage.check("dynpin guard allows the shop's rollback", shop.guard(before[shop]).ok)
    for site in (bank, shop):
        site.deploys(before[site], "rolls back to the key of yesterday")
    stage.expect(alice.visits(bank), "locked-out", decisive=True)
    stage.expect(alice.visits(shop), "served")

    stage.later(days(1))
    bank.deploys(bank.keys[1], "goes forward again")
    stage.expect(alice.visits(bank), "served")
