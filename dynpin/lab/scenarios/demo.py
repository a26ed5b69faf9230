"""The whole life of pins, from the first visit to the last: the story of `dynpin demo`."""

from __future__ import annotations

from dynpin.lab.clients import Client
from dynpin.lab.collecting import Collector
from dynpin.lab.scenarios import scenario
from dynpin.lab.servers import Site
from dynpin.lab.stage import Stage, days, minutes
from dynpin.pins import Pin


@scenario(
    number=25,
    name="demo",
    title="The whole life of pins",
    story=(
        "A bank and its shop pin their keys, and Alice's program remembers them. A hostile hotspot with a certificate "
        "from a trusted CA reads what Bob sends, and gets nothing from Alice; the violation is reported. The bank "
        "rotates its keys first correctly and then badly. The lock-out ends with max-age, and the bank unpins."
    ),
    rfc="Noting (§2.5), Pin Validation (§2.6), reports (§3), backup pins (§4.3), expiry and max-age=0 (§2.3).",
    browsers=("chromium-fatal", "firefox-fatal"),
    dynpin="All parts are dynpin's own: middleware, store, enforcement, report queue, collector and guard.",
    sources=("RFC 7469, April 2015.",),
    agents=("dynpin",),
)
def demo(stage: Stage) -> None:
    """The story, in chapters."""
    honest, careless = stage.authority("Honest CA"), stage.authority("Careless CA")
    collector = stage.world.enter(Collector(stage.world.folder, "bank"))
    stage.world.network["reports.test"] = collector.port
    report_uri = "http://reports.test/r/bank/enforce"
    bank = stage.site("bank.test", honest, backups=1, max_age=days(7), report_uri=report_uri)
    shop = stage.site("shop.test", honest, backups=1, max_age=days(7))
    alice, bob = stage.client("Alice"), stage.client("Bob", pins=False)

    stage.chapter(
        "First visit: the pins are noted",
        "Both certificates are sound, a pin is in each chain and a Backup Pin is not: a Valid Pinning Header, noted on "
        "first use for max-age seconds (§2.5).",
    )
    for site in (bank, shop):
        visit = alice.visits(site)
        stage.expect(visit, "served")
        pinned = visit.noting == "noted" and visit.pinned == (site.key.pin, site.backups[0].pin)
        stage.check(f"{site.host} is pinned to the key in use and to a backup, for 7 days", pinned)

    stage.chapter(
        "Second visit, after a restart: the pins are enforced",
        "Pins live in non-volatile storage (§2.5), and Pin Validation runs while TLS is set up, before an HTTP "
        "conversation begins (§2.6).",
    )
    alice.restarts("starts the program again: the pins are read from the disk")
    known = alice.knows(bank)
    stage.check("the store on the disk has the bank's pins", known is not None and known.pins[0] == bank.key.pin)
    stage.expect(alice.visits(bank), "served")

    stage.later(days(1))
    stage.chapter(
        "The fake Wi-Fi hotspot, met by a client without pins",
        "The attacker's certificate names the bank and is signed by Careless CA, which the client trusts. To TLS all "
        "is well: any trusted CA can vouch for any name (§1).",
    )
    mallory = stage.attacker("Mallory", takes=bank, certificate_of=careless, about="runs the Wi-Fi")
    stage.expect(bob.visits(bank), "fooled")
    stage.check("the attacker read Bob's token", b"the-token-of-bob" in mallory.server.received)

    stage.chapter(
        "The same hotspot, met by the client with pins",
        "None of the pinned keys is in the attacker's chain: a non-recoverable error, raised by the handshake, before "
        "the request was written (§2.6).",
    )
    refused = alice.visits(bank)
    stage.expect(refused, "protected", decisive=True)
    stage.check(f"the attacker received {refused.bytes_read} bytes of HTTP from Alice", refused.bytes_read == 0)

    stage.chapter(
        "The violation report arrives",
        "A client that refuses a connection tells the report-uri which pins it knew and which chains it saw (§3). The "
        "report waited on disk until the client was in an honest network.",
    )
    mallory.leaves()
    sent = alice.reports()
    stage.check("one report was sent, and taken", [each.taken for each in sent] == [True])
    reports, diagnosis = collector.reports(), collector.verdict()
    listed = [(each["hostname"], each["port"]) for each in reports]
    stage.check(f"the collector lists {', '.join(f'{host}:{port}' for host, port in listed)}", len(listed) == 1)
    shown = [Pin.from_certificate(each["validated-certificate-chain"][0]) for each in reports]
    stage.check("the key that it shows is the attacker's", shown == [mallory.key.pin])
    title = diagnosis["title"] if diagnosis else "none yet"
    stage.check(f"its verdict: {title}", diagnosis is not None and diagnosis["severity"] == "attack")

    stage.later(days(1))
    keys_change(stage, bank, alice)


def keys_change(stage: Stage, bank: Site, alice: Client) -> None:
    """The second half: keys are rotated, never pinned, and unpinned."""
    stage.chapter(
        "The bank rotates to its backup key",
        "The backup was pinned before it was needed, so it passes; its header names the next backup, and the metadata "
        "becomes exactly that (§2.5, §4.3).",
    )
    bank.rotates()
    visit = alice.visits(bank)
    stage.expect(visit, "served")
    stage.check("the former backup and a new one are pinned", visit.pinned == (bank.key.pin, bank.backups[0].pin))

    stage.chapter(
        "The bank moves to a key that was never pinned",
        "To the client that is what an attack looks like, so its own user is locked out. This is why browsers gave the "
        "header up, and why a backup is not optional (§4.3).",
    )
    unknown = bank.certifies(bank.makes_key())
    stage.check("dynpin guard refuses to deploy it", not bank.guard(unknown).ok)
    bank.deploys(unknown)
    stage.expect(alice.visits(bank), "locked-out")

    stage.chapter(
        "Max-age passes: the lock-out ends",
        "An expired host is no longer a Known Pinned Host: its pins are ignored, and the next header is a first use "
        "again (§2.3.3). The bank has restarted its server by now, which pins the new key.",
    )
    stage.later(days(7) - minutes(1))
    stage.expect(alice.visits(bank), "locked-out")
    stage.later(minutes(2))
    bank.pins()
    visit = alice.visits(bank)
    stage.expect(visit, "served")
    stage.check("the new key is noted", visit.noting == "noted" and visit.pinned[:1] == (bank.key.pin,))

    stage.chapter(
        "max-age=0 unpins",
        "Only a connection that passed Pin Validation can say it (§2.3.1, §2.5). The pins are sent along, since "
        "Chromium ignored a bare max-age=0.",
    )
    bank.pins("sends its pins with max-age=0", mode="unpin")
    stage.expect(alice.visits(bank), "served")
    stage.check("bank.test is no longer a Known Pinned Host", alice.knows(bank) is None)
    stage.check("no host is pinned any more: the shop's week is over too", alice.memory.known_hosts() == [])
