"""A page that names a thousand hosts: what a user agent forgets to make room (Black Hat Europe 2017)."""

from __future__ import annotations

from dynpin.lab.scenarios import scenario
from dynpin.lab.stage import Stage, days

# The size of Firefox's table, for HPKP and HSTS together.
TABLE = 1_024


@scenario(
    number=13,
    name="store-flooding",
    title="The store is flooded",
    story=(
        "Alice's user agent has pins of her bank, which she visits daily, and of her pension fund, which she visits "
        "now and then. Mallory makes her open a page with a picture from each of 1,024 subdomains of evil.test, and "
        "every one of them pins its key. Then Mallory answers as the fund, with a certificate of Careless CA."
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
        "ones are removed first."
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
    alice = stage.client("Alice")
    for site in (fund, bank):
        stage.expect(alice.visits(site), "served")
    stage.later(days(1))
    stage.expect(alice.visits(bank), "served")

    names = [f"host{number}.evil.test" for number in range(TABLE)]
    for name in names:
        stage.leads(name, evil)
    alice.memory.load(names)
    noted = sum(known.host.endswith(".evil.test") for known in alice.memory.known_hosts())
    told = f"opens a page of evil.test, which loads {TABLE} subdomains: {noted} of them are noted"
    stage.tells("Alice", told, target="evil.test")
    limits = {"dynpin": 1_000, "chromium": TABLE, "firefox": TABLE - 1, "wget2": TABLE}
    stage.check(f"the user agent keeps pins of {noted} names of evil.test", noted == limits[stage.agent.name])

    stage.later(days(1))
    for site in (fund, bank):
        stage.attacker("Mallory", takes=site, certificate_of=careless)
    stage.expect(alice.visits("fund.test"), "protected", firefox="fooled", decisive=True)
    stage.expect(alice.visits("bank.test"), "protected")
    last = alice.visits(names[-1])
    if stage.agent.name == "dynpin":
        stage.check("dynpin says why the last ones are not noted", "at most 1000 hosts below evil.test" in last.reason)
