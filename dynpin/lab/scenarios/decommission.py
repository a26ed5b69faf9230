"""How to stop pinning: no header, max-age=0 alone, and max-age=0 with the pins (RFC 7469 §2.3.1, §2.5)."""

from __future__ import annotations

from dynpin.deploy.lint import Circumstances
from dynpin.lab.scenarios import scenario
from dynpin.lab.stage import Stage, days


@scenario(
    number=19,
    name="decommission",
    title="How to stop pinning",
    story=(
        "Three sites want to stop pinning. The café just sends no header any more. The shop sends only max-age=0. The "
        "bank sends max-age=0 together with its pins. A week later each moves to a provider that makes a new key. Can "
        "their customers still connect?"
    ),
    rfc=(
        "A response without the header changes nothing. With max-age=0 a host is no longer a Known Pinned Host "
        "(§2.3.1, §2.1.2). But a header without pins is not a Valid Pinning Header, and only such a header is noted "
        "(§2.5). The RFC contradicts itself."
    ),
    browsers=(
        "chromium-zero",
        "firefox-zero",
        "wget2-unpins",
    ),
    dynpin=(
        "The client forgets the host in both cases, since the request comes from the holder of a pinned key. The "
        'server sends the pins with max-age=0 (Policy(mode="unpin")), which every client accepts; `dynpin lint` calls '
        "the bare form an error."
    ),
    sources=(
        "RFC 7469, April 2015, sections 2.3.1 and 2.5.",
        "2017-10-27: Chromium announces that HPKP will be removed.",
    ),
)
def decommission(stage: Stage) -> None:
    """The story."""
    honest = stage.authority("Honest CA")
    cafe = stage.site("cafe.test", honest, backups=1, max_age=days(60))
    shop = stage.site("shop.test", honest, backups=1, max_age=days(60), include_subdomains=True)
    bank = stage.site("bank.test", honest, backups=1, max_age=days(60), include_subdomains=True)
    alice = stage.client("Alice")
    for site in (cafe, shop, bank):
        stage.expect(alice.visits(site), "served")

    stage.later(days(10))
    cafe.sends(None)
    shop.sends("max-age=0")
    unpin = Circumstances(intent="unpin")
    stage.check("dynpin lint says that this does not unpin", "max-age-zero-without-pins" in shop.faults(unpin))
    bank.pins("sends its pins with max-age=0", mode="unpin")
    stage.check("dynpin lint accepts the bank's header", "max-age-zero-without-pins" not in bank.faults(unpin))
    for site in (cafe, shop, bank):
        stage.expect(alice.visits(site), "served")
    stage.check("the café's pins are still there", alice.knows(cafe) is not None)
    kept = alice.knows(shop) is not None
    stage.check(f"the shop's pins are {'still held' if kept else 'gone'}", kept == (stage.agent.name == "chromium"))
    stage.check("the bank's pins are gone", alice.knows(bank) is None)

    stage.later(days(7))
    for site in (shop, bank):
        site.sends(None)
    for site in (cafe, shop, bank):
        site.deploys(site.makes_key())
    stage.expect(alice.visits(cafe), "locked-out")
    stage.expect(alice.visits(shop), "served", chromium="locked-out", decisive=True)
    stage.expect(alice.visits(bank), "served")
