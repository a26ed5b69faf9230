"""Smashing Magazine, 2016: the new key and its pin went live together (RFC 7469 §4.1, §4.3)."""

from __future__ import annotations

from dynpin.deploy.lint import Circumstances
from dynpin.deploy.rotation import plan
from dynpin.errors import PolicyError
from dynpin.lab.scenarios import scenario
from dynpin.lab.stage import Stage, days


@scenario(
    number=5,
    name="smashing-magazine",
    title="Smashing Magazine's rotation",
    story=(
        "A magazine pins three keys for a year, with subdomains. When its certificate expires it makes a new key, adds "
        "its pin to the header, and deploys both in the same hour. Returning readers have the old pins and refuse the "
        "new key, so they never see the new header. A weekly takes the same steps in the right order."
    ),
    rfc=(
        "A user agent learns new pins only over a connection that the old pins allow (§2.5). New keys are introduced "
        "in step with max-age (§4.1). A cap of about 60 days limits the harm."
    ),
    browsers=(
        "chromium-cap",
        "firefox-cap",
        "wget2-no-cap",
    ),
    dynpin=(
        "Policy refuses more than 60 days; `dynpin guard` refuses the new key and names the reason; `dynpin rotate "
        "plan` gives the dates to publish, deploy and retire; `dynpin lint` sees the fault from outside."
    ),
    sources=(
        "2016-10-21 to 25: Smashing Magazine was unreachable for most of its returning readers ('Be Afraid Of HTTP "
        "Public Key Pinning'): max-age=31536000, includeSubDomains, three pins.",
    ),
)
def smashing_magazine(stage: Stage) -> None:
    """The story."""
    honest = stage.authority("Honest CA")
    magazine = stage.site(
        "magazine.test", honest, backups=2, max_age=days(365), include_subdomains=True, allow_long_max_age=True
    )
    shop = stage.site("shop.magazine.test", honest, shows=honest.issue("shop.magazine.test", magazine.key))
    refusal = stage.refuses("Policy refuses a year", lambda: magazine.policy(allow_long_max_age=False), PolicyError)
    stage.check("and names the limit", "60 days" in refusal)
    weekly = stage.site("weekly.test", honest, backups=1, max_age=days(30), about="rotates by plan")
    alice = stage.client("Alice", about="reads both")
    for site in (magazine, shop, weekly):
        stage.expect(alice.visits(site), "served")

    stage.later(days(20))
    # The weekly begins early: it publishes the pin of the next key one max-age before the key.
    successor = weekly.makes_key()
    steps = plan(weekly.history, successor.pin, [weekly.backups[0].pin], stage.now)
    stage.check(
        "dynpin's plan: publish, deploy, retire",
        # If the header names a recovery root, there is also a step to sign the list.
        [step.name for step in steps if step.name != "sign"] == ["publish", "deploy", "retire"],
    )
    weekly.backups.append(successor)
    weekly.pins()
    stage.expect(alice.visits(weekly), "served")

    before = magazine.header
    hasty = magazine.makes_key()
    verdict = magazine.guard(magazine.certifies(hasty))
    stage.check("the guard refuses the magazine's new key", not verdict.ok and verdict.ready_at is None)
    magazine.deploys(hasty)
    shop.deploys(honest.issue(shop.host, hasty), "shows the same new key")
    magazine.pins()
    seen = Circumstances(previous_header=before)
    stage.check("dynpin lint sees it from outside", "rotation-too-early" in magazine.faults(seen))
    stage.expect(alice.visits(magazine), "locked-out", decisive=True)
    stage.expect(alice.visits(shop), "locked-out")
    stage.expect(stage.client("Bob", about="is new").visits(magazine), "served")

    stage.later(days(15))
    stage.expect(alice.visits(weekly), "served")
    stage.later(days(15))
    on_time = stage.now == steps[1].at and weekly.guard(weekly.certifies(successor)).ok
    stage.check("on the planned day the guard allows the weekly's new key", on_time)
    weekly.deploys(successor)
    weekly.backups = weekly.keys[:2]  # the old key stays pinned for a possible rollback, until nobody needs it
    weekly.pins()
    stage.expect(alice.visits(weekly), "served")

    stage.later(days(31))
    weekly.backups = weekly.keys[1:2]
    weekly.pins()
    stage.expect(alice.visits(weekly), "served")
    stage.expect(alice.visits(magazine), "served", wget2="locked-out")
