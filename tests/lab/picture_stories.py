"""The stories for the tests of pictures."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from dynpin.lab.timeline import Actor, Event, Held, Key, Outcome, Timeline
from dynpin.pins import Pin

DAY = 86_400.0


def pin(name: str) -> Pin:
    return Pin(hashlib.sha256(name.encode()).digest())


HOME, BACKUP, FORGED, ROOT = map(pin, ("home", "backup", "forged", "root"))


def story(*events: Event) -> Timeline:
    return Timeline(
        "story",
        "dynpin",
        [
            Actor("Honest CA", "authority"),
            Actor("bank.test", "site", "pins for 30 days"),
            Actor("Mallory", "attacker"),
            Actor("Alice", "client"),
        ],
        [
            Key("Honest CA key", ROOT, "Honest CA"),
            Key("bank.test key 1", HOME, "bank.test"),
            Key("bank.test key 2", BACKUP, "bank.test"),
            Key("Mallory key 1", FORGED, "Mallory"),
        ],
        list(events),
    )


def visit(at: float, outcome: Outcome = "served", noting: str | None = None, *, until: float | None = None) -> Event:
    """Alice visits the bank, or Mallory who answers for it; she holds pins if `until` is given."""
    fooled = outcome in ("fooled", "protected")
    return Event(
        at * DAY,
        "Alice",
        f"visits bank.test: {outcome}",
        target="Mallory" if fooled else "bank.test",
        outcome=outcome,
        host="bank.test",
        shown=(FORGED,) if fooled else (HOME, ROOT),
        pinned=() if until is None else (HOME, BACKUP),
        noting=noting,
        held={} if until is None else {"Alice": (Held("bank.test", (HOME, BACKUP), until=until * DAY),)},
        bytes_read=0 if outcome in ("protected", "locked-out") else 177,
    )


HOTSPOT = story(
    visit(0, noting="noted", until=30),
    Event(DAY, "Mallory", "answers bank.test", target="bank.test", shown=(FORGED,)),
    visit(1, "protected"),
    replace(visit(40, "fooled"), held={"Alice": ()}),
)
