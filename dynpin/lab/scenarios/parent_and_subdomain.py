"""Parent and subdomain with different pins: the order of visits decides (RFC 7469 §4.2)."""

from __future__ import annotations

from dynpin.deploy.lint import Circumstances
from dynpin.lab.scenarios import scenario
from dynpin.lab.stage import Stage, days


@scenario(
    number=9,
    name="parent-and-subdomain",
    title="Parent and subdomain with different pins",
    story=(
        "shop.test pins its keys with includeSubDomains. Another team runs pay.shop.test with its own keys and pins. "
        "Alice visits pay.shop.test first and the shop later: everything works. Bob visits the shop first, and his "
        "user agent refuses pay.shop.test. If Alice does not pay for some time, the pins of pay.shop.test expire, and "
        "she is locked out too."
    ),
    rfc=(
        "The host's own pins come first, then those of a superdomain with includeSubDomains (§2.6, by RFC 6797 §8.2). "
        "So the order of visits decides (§4.2): use overlapping pin sets, or be careful with includeSubDomains."
    ),
    browsers=(
        "chromium-nearest",
        "wget2-nearest",
        "firefox-covers",
    ),
    dynpin=(
        "`dynpin lint` finds the subdomains that includeSubDomains locks out; a Policy takes the keys of another team "
        "among its backups, so that both pin sets overlap."
    ),
    sources=(
        "RFC 7469, April 2015, section 4.2: example.com and subdomain.example.com.",
        "RFC 6797, November 2012, section 8.2: congruent match and superdomain match.",
    ),
)
def parent_and_subdomain(stage: Stage) -> None:
    """The story."""
    honest = stage.authority("Honest CA")
    shop = stage.site("shop.test", honest, backups=1, max_age=days(60), include_subdomains=True)
    till = stage.site("pay.shop.test", honest, backups=1, max_age=days(10), about="of another team")
    pictures = stage.site("img.pay.shop.test", honest, about="sends no pins")
    alice, bob = stage.client("Alice", about="pays first"), stage.client("Bob", about="looks first")
    for site in (till, shop, till):
        stage.expect(alice.visits(site), "served")
    stage.expect(bob.visits(shop), "served")
    stage.expect(bob.visits(till), "locked-out", decisive=True)
    known = bob.knows(till)
    stage.check("the pins that refuse pay.shop.test are the shop's", known is not None and known.host == "shop.test")
    stage.expect(alice.visits(pictures), "locked-out", chromium="served", wget2="served")
    below = Circumstances(subdomain_chain_pins={"pay.shop.test": tuple(map(str, till.certificate.pins))})
    fault = "unpinned-subdomain-under-includeSubDomains"
    stage.check("dynpin lint finds the subdomain that is locked out", fault in shop.faults(below))

    stage.later(days(11))
    stage.expect(alice.visits(till), "locked-out")

    shop.backups += [till.key, *till.backups]
    shop.pins("pins the keys of pay.shop.test besides its own")
    stage.check("dynpin lint finds no fault", fault not in shop.faults(below))
    for client in (alice, bob):
        stage.expect(client.visits(shop), "served")
        stage.expect(client.visits(till), "served")
