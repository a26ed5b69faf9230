"""The super-cookie: the set of pinned names identifies a visitor, even without cookies (RFC 7469 §5)."""

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
        "A tracker gives each visitor a number. For each bit that is set, its page loads a picture from a subdomain "
        "that pins its key (two bits here; 32 are enough for everybody on earth). Later it shows another key on all of "
        "them: if a picture fails, the bit is set. Alice sends no cookie, and is recognised. An advertiser needs only "
        "one header: its backup pin is a mark for the visitor, and a violation report from a bad subdomain sends the "
        "mark back."
    ),
    rfc=(
        "§5 describes both ways: N subdomains distinguish 2^N user agents, and report-uri carries arbitrary pins. User "
        "agents should let users view and clear pins, and may refuse reports outside the origin."
    ),
    browsers=(
        "chromium-incognito",
        "firefox-private",
        "wget2-one-file",
        "firefox-no-reports",
        "wget2-no-reports",
    ),
    dynpin=(
        "A store can be partitioned by the visited site, or kept only in memory (PinStore.private()); reports can be "
        "limited to the pinned host's own domain; `dynpin lint` sees headers that differ between visitors. Recovery "
        "changes nothing: the lock-out is the mark, and the tracker signs no list."
    ),
    recovery="cannot",
    sources=(
        "RFC 7469, April 2015, section 5.",
        "2015-01: Sam Greenhalgh shows HSTS super-cookies that work in private browsing.",
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

    # The options of a user: each has a row of its own.
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
    """The number that the tracker reads: a bit is set if the picture failed."""
    return sum(1 << bit for bit, visit in enumerate(seen) if visit.outcome == "locked-out")


def by_report(stage: Stage, honest: Authority) -> None:
    """The second way: a pin that is a mark, and a report that sends it back."""
    reports, ads = stage.site("reports.test", honest), stage.site("ads.test", honest)
    bad = stage.site("bad.ads.test", stage.authority("Other CA"), about="exists to fail")
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
