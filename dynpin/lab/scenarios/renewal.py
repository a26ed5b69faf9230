"""The renewal at day 60 makes a new key, as ACME clients do by default (RFC 7469 §2.6)."""

from __future__ import annotations

from dynpin.deploy.lint import Circumstances
from dynpin.lab.scenarios import scenario
from dynpin.lab.stage import Stage, days


@scenario(
    number=6,
    name="renewal",
    title="The renewal at day 60 makes a new key",
    story=(
        "The shop's certificate is valid for 90 days, and at day 60 a timer renews it. By default that makes a new "
        "key. The header is a line in the server's configuration and does not change, so from that night on every "
        "returning customer is refused. The bakery next door renews too, with the same key."
    ),
    rfc="A pin is for a key, so a certificate may be renewed any number of times with the same key (§2.4).",
    browsers=(
        "chromium-valid",
        "firefox-valid",
        "wget2-any",
    ),
    dynpin=(
        "`dynpin guard` stops the new key in the deploy hook (`dynpin guard --hook` writes one) and says --reuse-key; "
        "the middleware makes the header from the key files, and never sends a pin for a key that is not there."
    ),
    sources=(
        "2015-2018: certbot issues 231, 407 and 3788: a new key at each renewal, until there was --reuse-key.",
        "lego issue 52, acme.sh issue 962, acmetool issue 58: the same question.",
    ),
)
def renewal(stage: Stage) -> None:
    """The story."""
    honest = stage.authority("Honest CA")
    shop = stage.site("shop.test", honest, backups=1, max_age=days(60))
    bakery = stage.site("bakery.test", honest, backups=1, max_age=days(60))
    alice = stage.client("Alice")
    stage.expect(alice.visits(shop), "served")
    stage.expect(alice.visits(bakery), "served")

    stage.later(days(59))
    stage.expect(alice.visits(shop), "served")
    stage.expect(alice.visits(bakery), "served")

    stage.later(days(1))
    renewed = shop.certifies(shop.makes_key())
    verdict = shop.guard(renewed)
    stage.check("the guard refuses the renewed certificate", not verdict.ok)
    stage.check("and says how to renew", any("--reuse-key" in advice for advice in verdict.advice))
    about_to = Circumstances(deployed_key=str(renewed.key.pin))
    stage.check("dynpin lint knows it too", "renewal-creates-a-new-key" in shop.faults(about_to))
    shop.sends(shop.header, "sends the same header as before, from a line in its configuration")
    shop.deploys(renewed, "renews its certificate, with a new key")
    same_key = bakery.certifies(bakery.key)
    stage.check("the guard allows the bakery's", bakery.guard(same_key).ok)
    bakery.deploys(same_key, "renews its certificate, with the same key")

    stage.later(days(1))
    stage.expect(alice.visits(shop), "locked-out", decisive=True)
    stage.expect(alice.visits(bakery), "served")
    bob = stage.client("Bob", about="is new")
    first = bob.visits(shop)
    stage.expect(first, "served")
    stage.check(
        "no pin of the header is in the chain, so it is ignored (except by wget2)",
        first.noting == ("noted" if stage.agent.name == "wget2" else "ignored"),
    )
    stage.expect(bob.visits(shop), "served", wget2="locked-out")
