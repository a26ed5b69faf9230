"""Reports that are sent to the failing host, and hosts that report to each other (RFC 7469 §2.1.4)."""

from __future__ import annotations

from dynpin.errors import PolicyError
from dynpin.header import PublicKeyPins
from dynpin.lab.scenarios import scenario
from dynpin.lab.stage import Stage, days, hours

FAULTY = "https://bank.test/reports"


@scenario(
    number=15,
    name="report-loops",
    title="Reports in a loop",
    story=(
        "The bank's report-uri is on the bank itself. Mallory answers as the bank, and Alice's user agent refuses her. "
        "The report would go to Mallory. Two shops report to each other instead. Mallory answers as both: the report "
        "about one fails at the other, and that failure would be reported to the first."
    ),
    rfc=(
        "If the report-uri's own host fails Pin Validation, the connection is ended, and the report may be sent later. "
        "Two hosts that report to each other are a loop, which user agents should break; and they should limit the "
        "rate (§2.1.4)."
    ),
    browsers=(
        "chromium-report-loop",
        "chromium-reports",
        "firefox-no-reports",
        "wget2-no-reports",
    ),
    dynpin=(
        "Policy and `dynpin lint` refuse a report-uri on the pinned host or under its includeSubDomains. A client's "
        "queue never sends a report to the host that it is about, creates no report while it sends one, and tries "
        "again from an honest network."
    ),
    sources=(
        "RFC 7469, April 2015, section 2.1.4.",
        "2017: Chromium's transport_security_state.cc remembers sent reports for an hour.",
    ),
)
def report_loops(stage: Stage) -> None:
    """The story."""
    honest, careless = stage.authority("Honest CA"), stage.authority("Careless CA")
    bank = stage.site("bank.test", honest, backups=1, max_age=days(30))
    stage.refuses(
        "Policy accepts no report-uri on the pinned host", lambda: bank.policy(report_uri=FAULTY), PolicyError
    )
    stage.refuses(
        "nor one that includeSubDomains covers",
        lambda: bank.policy(include_subdomains=True, report_uri="https://reports.bank.test/"),
        PolicyError,
    )
    header = PublicKeyPins((bank.key.pin, bank.backups[0].pin), 2_592_000, report_uri=FAULTY)
    bank.sends(str(header), f"asks for reports at {FAULTY}, though Policy refuses that")
    stage.check("dynpin lint says the same", "report-uri-same-host" in bank.faults())
    alice = stage.client("Alice")
    stage.expect(alice.visits(bank), "served")
    stage.later(days(1))
    mallory = stage.attacker("Mallory", takes=bank, certificate_of=careless)
    stage.expect(alice.visits(bank.host), "protected")
    stage.check("no report goes to Mallory", not alice.reports() and mallory.server.connections == 1)

    one = stage.site("one.test", honest, backups=1, max_age=days(30), report_uri="https://two.test/reports")
    two = stage.site("two.test", honest, backups=1, max_age=days(30), report_uri="https://one.test/reports")
    bob = stage.client("Bob")
    for site in (one, two):
        stage.expect(bob.visits(site), "served")
    stage.later(days(1))
    as_one, as_two = (stage.attacker("Mallory", takes=site, certificate_of=careless) for site in (one, two))
    stage.expect(bob.visits(one.host), "protected", decisive=True)
    attempts = bob.reports()
    # One connection is the visit. Chromium's report about one.test fails at two.test, and so does the next one there.
    met = {"dynpin": (1, 1), "chromium": (2, 1), "firefox": (1, 0), "wget2": (1, 0)}[stage.agent.name]
    found = (as_one.server.connections, as_two.server.connections)
    stage.check(
        f"no loop: for one.test Mallory is visited {_times(found[0])}, for two.test {_times(found[1])}", found == met
    )
    stage.check("Mallory reads no report", not as_one.server.received and not as_two.server.received)
    if stage.agent.name == "dynpin":
        why = "its host fails Pin Validation itself"
        stage.check("dynpin's queue says why the report waits", [each.reason[: len(why)] for each in attempts] == [why])

    stage.later(hours(2))
    for each in (as_one, as_two):
        each.leaves()
    bob.reports()
    arrived = two.server.received.count(b"POST /reports ")
    told = "the report arrives" if arrived else "no report arrives"
    stage.check(f"{told}, once the network is honest again", arrived == (stage.agent.name == "dynpin"))


def _times(number: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(number, f"{number} times")
