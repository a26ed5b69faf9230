"""A root that the user installed: browsers let it pass, but a closed network has no other (RFC 7469 §2.6)."""

from __future__ import annotations

from dynpin.deploy.lint import Circumstances
from dynpin.lab.scenarios import scenario
from dynpin.lab.stage import Stage, days


@scenario(
    number=17,
    name="private-root",
    title="A private root",
    story=(
        "A company runs its own CA, whose root is installed on all its machines. Its payroll, an internal site, pins "
        "its key. So does the bank, an external site with a certificate from a CA that browsers ship. Then somebody "
        "gets control of the company's CA and signs a certificate for both names. Do pins help if a root was installed "
        "by hand?"
    ),
    rfc=(
        "A user agent may disable Pin Validation for some hosts by policy, for example for chains that end in a trust "
        "anchor that the user has installed and that is not built in (§2.6)."
    ),
    browsers=(
        "chromium-user-roots",
        "firefox-user-roots",
        "wget2-all-roots",
    ),
    dynpin=(
        "Pins are enforced for every root, since in a closed environment every root is private; private_roots="
        '"bypass" gives the browsers\' rule to people behind an inspecting proxy. `dynpin lint` warns of it.'
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
    stage.check("dynpin lint warns that browsers do not enforce the payroll's pins", "root-not-built-in" in found)

    stage.later(days(1))
    for site in (bank, payroll):
        stage.attacker("Mallory", takes=site, certificate_of=company, about="makes the company's CA sign")
    stage.expect(alice.visits(bank), "protected", chromium="fooled", firefox="fooled")
    stage.expect(alice.visits(payroll), "protected", chromium="fooled", firefox="fooled", decisive=True)
    if bypasses:
        stage.expect(clients[1].visits(bank), "fooled")
        stage.expect(clients[1].visits(payroll), "fooled", option='private_roots="bypass"')
