"""A page that names a thousand hosts: what a user agent forgets to make room (Black Hat Europe 2017)."""

from __future__ import annotations

from dynpin.counts import counted
from dynpin.lab.scenarios import scenario
from dynpin.lab.stage import Stage, days

# The size of Firefox's table, for HPKP and HSTS together. Two entries are Alice's.
TABLE = 1_024
PICTURES = TABLE - 2
# dynpin's limit below one domain is an option, 1,000 by default. A small one shows the same with fewer visits.
LIMIT = 20


@scenario(
    number=13,
    name="store-flooding",
    title="The store is flooded",
    story=(
        "Alice's user agent has pins of her bank, which she visits daily, and of her pension fund, which she visits "
        "now and then. Mallory makes her open a page on two days. It has a picture from each of many subdomains of "
        "evil.test, and every one of them pins its key. They fill Firefox's table on the first day. On the second day "
        "all of them have been used on more days than the fund, and there is one more. Then Mallory answers as the "
        "fund, with a certificate of Careless CA."
    ),
    rfc=(
        "User agents cache pins until max-age has passed (§2.3.3, §2.5). The RFC does not say what happens when the "
        "cache is full."
    ),
    browsers=(
        "firefox-1024",
        "chromium-no-limit",
        "chromium-flooded",
        "wget2-no-limit",
    ),
    dynpin=(
        "A limit for each registrable domain and one for the whole store refuse new hosts and keep old ones; expired "
        "ones are removed first. For a domain it is 1,000 hosts by default, and 20 in this story "
        "(`max_hosts_per_domain=20`)."
    ),
    sources=(
        "2017-12: ElevenPaths at Black Hat Europe, 'Breaking Out HSTS (and HPKP) on Firefox, IE/Edge and (possibly) "
        "Chrome'.",
    ),
)
def store_flooding(stage: Stage) -> None:
    """The story."""
    honest, careless = stage.authority("Honest CA"), stage.authority("Careless CA")
    fund = stage.site("fund.test", honest, backups=1, max_age=days(60))
    bank = stage.site("bank.test", honest, backups=1, max_age=days(60))
    evil = stage.site("*.evil.test", honest, name="evil.test", backups=1, max_age=days(60), about="is Mallory's")
    if limited := stage.has("max_hosts_per_domain"):
        alice = stage.client("Alice", about=f"max_hosts_per_domain={LIMIT}", max_hosts_per_domain=LIMIT)
    else:
        alice = stage.client("Alice")
    for site in (fund, bank):
        stage.expect(alice.visits(site), "served")
    stage.later(days(1))
    stage.expect(alice.visits(bank), "served")

    names = [f"host{number}.evil.test" for number in range(1 + (LIMIT if limited else PICTURES))]
    for name in names:
        stage.leads(name, evil)

    def opens(pictures: list[str]) -> int:
        alice.memory.load(pictures)
        noted = sum(known.host.endswith(".evil.test") for known in alice.memory.known_hosts())
        told = f"opens a page of evil.test, with pictures from {counted(len(pictures), 'new subdomain')}"
        stage.tells("Alice", f"{told}: pins of {counted(noted, 'subdomain')} are held now", target="evil.test")
        return noted

    noted = opens(names[:-1])
    stage.check(f"the user agent holds pins of {noted:,} subdomains of evil.test", noted == len(names) - 1)
    stage.later(days(1))
    stage.expect(alice.visits(bank), "served")
    # Days count for Firefox alone. wget2 would need a handshake for each name again.
    noted = opens(names if stage.agent.name == "firefox" else names[-1:])
    stage.check(f"and of {noted:,} after the last picture", noted == (LIMIT if limited else len(names)))

    stage.later(days(1))
    for site in (fund, bank):
        stage.attacker("Mallory", takes=site, certificate_of=careless)
    stage.expect(alice.visits("fund.test"), "protected", firefox="fooled", decisive=True)
    stage.expect(alice.visits("bank.test"), "protected")
    last = alice.visits(names[-1])
    if limited:
        told = f"at most {LIMIT} hosts below evil.test" in last.reason
        stage.check("dynpin says why the last one is not noted", told)
