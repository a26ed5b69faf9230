"""The super-cookie: which names are pinned tells a visitor apart, after every cookie is gone (RFC 7469 §5)."""

from __future__ import annotations

from dynpin.deploy.lint import Circumstances
from dynpin.header import PublicKeyPins
from dynpin.lab.certificates import Authority, KeyPair
from dynpin.lab.clients import Client
from dynpin.lab.scenarios import scenario
from dynpin.lab.stage import Stage, days
from dynpin.lab.timeline import Event

BITS = 2
NUMBER = 0b10


@scenario(
    number=12,
    name="super-cookie",
    title="The super-cookie",
    story=(
        "A tracker gives each visitor a number, and has the page load, for each bit of it that is set, a picture from "
        "a subdomain that pins its key (two bits here, 32 for everybody on earth). Later it shows another key on all "
        "of them: where the picture fails the bit is set. Alice sends no cookie, and is known. An advertiser does it "
        "with one header, in which the backup pin is a mark of the visitor's own, and has a bad subdomain bring it "
        "back as a violation report."
    ),
    rfc=(
        "§5 describes both ways: N subdomains tell 2^N user agents apart, and report-uri carries arbitrary pins. User "
        "agents should let users look at pins and clear them, and may refuse reports outside of the origin."
    ),
    browsers=(
        "chromium-incognito",
        "firefox-private",
        "wget2-one-file",
        "firefox-no-reports",
        "wget2-no-reports",
    ),
    dynpin=(
        "A store can be partitioned by the site that is visited, or kept in memory alone (PinStore.private()); reports "
        "can be held within the pinned host's own domain; `dynpin lint` sees headers that differ between visitors. "
        "Recovery changes nothing: the lock-out is the mark, and the tracker signs no list."
    ),
    recovery="cannot",
    sources=(
        "RFC 7469, April 2015, section 5.",
        "2015-01: Sam Greenhalgh shows HSTS super-cookies that reach into private browsing.",
    ),
)
def super_cookie(stage: Stage) -> None:
    """The first way: subdomains."""
    honest = stage.authority("Honest CA")
    marker = stage.site("*.tracker.test", honest, name="tracker.test", backups=1, max_age=days(60))
    reader = stage.site("*.tracker.test", honest, name="tracker.test, later", about="shows another key")
    names = [f"bit{bit}.tracker.test" for bit in range(BITS)]

    def mark(client: Client) -> None:
        for bit, name in enumerate(names):
            stage.leads(name, marker)
            if NUMBER >> bit & 1:
                stage.expect(client.visits(name), "served")

    def look(client: Client) -> list[Event]:
        stage.tells(reader.name, "answers every subdomain, with another key", shown=reader.certificate.pins)
        for name in names:
            stage.leads(name, reader)
        return [client.visits(name) for name in names]

    alice = stage.client("Alice")
    mark(alice)
    stage.later(days(7))
    alice.restarts("starts the user agent again, and sends no cookie")
    seen, bit = look(alice), NUMBER.bit_length() - 1
    stage.check(f"the tracker reads Alice's number: {NUMBER}", number(seen) == NUMBER)
    stage.expect(seen[bit], "locked-out", decisive=True)

    # What a user may opt in to: each a row of its own.
    if stage.has("partition"):
        stage.later(days(1))
        news = stage.client("Carol, on news.test", partition="news.test")
        mark(news)
        news.restarts()
        stage.later(days(1))
        seen = look(stage.client("Carol, on shop.test", device_of=news, partition="shop.test"))
        stage.check("on another site it reads nothing of Carol", number(seen) == 0)
        stage.expect(seen[bit], "served", option="partition=")
    if stage.has("private"):
        stage.later(days(1))
        dave = stage.client("Dave, in private", private=True)
        mark(dave)
        dave.restarts("closes the private window, and opens another")
        seen = look(dave)
        stage.check("in the next private window it reads nothing of Dave", number(seen) == 0)
        stage.expect(seen[bit], "served", option="private window")
    stage.later(days(1))
    by_report(stage, honest)


def number(seen: list[Event]) -> int:
    """What the tracker reads: a bit is set where the picture failed."""
    return sum(1 << bit for bit, visit in enumerate(seen) if visit.outcome == "locked-out")


def by_report(stage: Stage, honest: Authority) -> None:
    """The second way: a pin that is a mark, brought back by a report."""
    reports, ads = stage.site("reports.test", honest), stage.site("ads.test", honest)
    bad = stage.site("bad.ads.test", stage.authority("Other CA"), about="is there to fail")
    headers: list[str] = []
    sends = stage.agent.name in ("dynpin", "chromium")
    people = [(stage.client("Erin"), sends), (stage.client("Frank"), sends)]
    if stage.has("reports"):
        people.append((stage.client("Grace", about='reports="same-domain"', reports="same-domain"), False))
    for client, reporting in people:
        person = client.name
        mark = KeyPair(f"{person}'s mark", "ads.test")
        stage.names(mark)
        headers.append(str(PublicKeyPins((ads.key.pin, mark.pin), 5_184_000, True, "https://reports.test/")))
        ads.sends(headers[-1], f"sends {person} a pin that nobody else gets")
        stage.expect(client.visits(ads), "served")
        stage.expect(client.visits(bad), "locked-out")
        client.reports()
        back = str(mark.pin).encode() in reports.server.received
        stage.check(f"{person}'s mark {'comes back by a report' if back else 'does not come back'}", back == reporting)
    visits = Circumstances(visits=tuple(headers))
    stage.check("dynpin lint sees that visitors are sent different pins", "hpkp-supercookie" in ads.faults(visits))
