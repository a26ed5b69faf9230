"""A root that the user has installed: by the browsers' rule it passes; a closed network has no other (§2.6)."""

from __future__ import annotations

from dynpin.deploy.lint import Circumstances
from dynpin.lab.scenarios import scenario
from dynpin.lab.stage import Stage, days


@scenario(
    number=17,
    name="private-root",
    title="A private root",
    story=(
        "A company runs its own CA and has its root installed on every machine. Its payroll, inside, pins its key; so "
        "does the bank, outside, under a CA that browsers ship. Then somebody gets hold of the company's CA and signs "
        "a certificate for each of the two names. Are pins good for anything where the root was installed by hand?"
    ),
    rfc=(
        "It is acceptable to switch Pin Validation off for some hosts by policy: a user agent may do so for chains "
        "that end in a trust anchor which the user has installed rather than one that is built in (§2.6)."
    ),
    browsers=(
        "chromium-user-roots",
        "firefox-user-roots",
        "wget2-all-roots",
    ),
    dynpin=(
        "Pins are enforced whatever the root, since in a closed environment every root is private; private_roots="
        '"bypass" gives the browsers\' rule to whoever must live with an inspecting proxy. `dynpin lint` warns of it.'
    ),
    sources=(
        "RFC 7469, April 2015, section 2.6.",
        "2015-02: Superfish, a root that Lenovo installed on its laptops, for a proxy that read https.",
    ),
)
def private_root(stage: Stage) -> None:
    """The story."""
    public = stage.authority("Public CA", about="is shipped with browsers")
    company = stage.authority("Company CA", public=False, about="is installed by hand")
    bank = stage.site("bank.test", public, backups=1, max_age=days(60))
    payroll = stage.site("payroll.test", company, backups=1, max_age=days(60))
    alice = stage.client("Alice")
    clients = [alice]
    if bypasses := stage.has("private_roots"):
        clients.append(stage.client("Bob", about='private_roots="bypass"', private_roots="bypass"))
    for client in clients:
        for site in (bank, payroll):
            stage.expect(client.visits(site), "served")
    found = payroll.faults(Circumstances(chain_root="Company CA"))
    stage.check("dynpin lint warns that browsers do not hold the payroll's pins", "root-not-built-in" in found)

    stage.later(days(1))
    for site in (bank, payroll):
        stage.attacker("Mallory", takes=site, certificate_of=company, about="has the company's CA sign")
    stage.expect(alice.visits(bank), "protected", chromium="fooled", firefox="fooled")
    stage.expect(alice.visits(payroll), "protected", chromium="fooled", firefox="fooled", decisive=True)
    if bypasses:
        stage.expect(clients[1].visits(bank), "fooled")
        stage.expect(clients[1].visits(payroll), "fooled", option='private_roots="bypass"')
