"""A subdomain on a third party's server, under includeSubDomains: nobody asked them (RFC 7469 §4.2)."""

from __future__ import annotations

from dynpin.deploy.lint import Circumstances
from dynpin.lab.scenarios import scenario
from dynpin.lab.stage import Stage, days


@scenario(
    number=10,
    name="third-party-subdomain",
    title="A third party's subdomain",
    story=(
        "A hiring firm serves careers.shop.test, with its own keys, which it changes as it likes, and without pins. "
        "The shop has pinned its keys for a long time, and adds includeSubDomains. From their next visit to the shop "
        "its visitors cannot reach the firm's pages. People who apply for a job and never visit the shop still can."
    ),
    rfc=(
        "includeSubDomains covers every subdomain on any server (§2.1.3), and no header of the third party would help: "
        "a refused connection carries none (§4.2, §2.5)."
    ),
    browsers=(
        "chromium-nearest",
        "firefox-covers",
    ),
    dynpin=(
        "`dynpin lint` gets the chains of subdomains and finds the fault before the header is sent; a header without "
        "includeSubDomains replaces the noted policy at the next visit of the shop itself."
    ),
    sources=(
        "RFC 7469, April 2015, sections 2.1.3 and 4.2.",
        "2016-03: Netcraft counts under 4,100 certificates with pins, and a third of the headers broken.",
    ),
)
def third_party_subdomain(stage: Stage) -> None:
    """The story."""
    honest, other = stage.authority("Honest CA"), stage.authority("Other CA")
    shop = stage.site("shop.test", honest, backups=1, max_age=days(30))
    careers = stage.site("careers.shop.test", other, about="served by a hiring firm")
    alice, carol = stage.client("Alice", about="shops"), stage.client("Carol", about="wants a job")
    for site in (shop, careers):
        stage.expect(alice.visits(site), "served")
    stage.expect(carol.visits(careers), "served")

    stage.later(days(1))
    below = Circumstances(subdomain_chain_pins={"careers.shop.test": tuple(map(str, careers.certificate.pins))})
    fault, covering = "unpinned-subdomain-under-includeSubDomains", str(shop.policy(include_subdomains=True).header)
    stage.check("dynpin lint finds the fault before the header is sent", fault in shop.faults(below, covering))
    shop.pins("adds includeSubDomains", include_subdomains=True)
    stage.expect(alice.visits(shop), "served")
    stage.expect(alice.visits(careers), "locked-out", decisive=True)
    stage.expect(carol.visits(careers), "served")

    stage.later(days(1))
    careers.deploys(careers.makes_key(), "changes its key, as it does every month")
    stage.expect(carol.visits(careers), "served")
    shop.pins("takes includeSubDomains back", include_subdomains=False)
    stage.expect(alice.visits(careers), "locked-out")
    stage.expect(alice.visits(shop), "served")
    stage.expect(alice.visits(careers), "served")
