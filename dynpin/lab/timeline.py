"""What happened in one playing of a scenario, as data: the page, the picture, the terminal and the tests all read this.

A scenario is played by one user agent (dynpin itself, or the model of another); a :class:`Timeline` is the record.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

from dynpin.deploy.tables import csv_table, html_table
from dynpin.durations import duration
from dynpin.pins import Pin

__all__ = ["Actor", "Chapter", "Event", "Held", "Key", "Outcome", "Remark", "Role", "Timeline", "day"]

_SECONDS = re.compile(r"\b([0-9]{2,}) seconds\b")

Role = Literal["authority", "site", "attacker", "client"]

# What a visit came to. "served": the true site answered. "fooled": somebody else read the request. "protected": Pin
# Validation refused somebody else. "locked-out": it refused the true site. "failed": TLS or the network failed for
# another reason than pins.
Outcome = Literal["served", "fooled", "protected", "locked-out", "failed"]


@dataclass(frozen=True, slots=True)
class Actor:
    """Who plays: a lane of the picture.

    Attributes:
        name: as the story calls it, such as ``"bank.test"`` or ``"Alice"``.
        role: ``"authority"``, ``"site"``, ``"attacker"`` or ``"client"``.
        about: what is to be known of it, in a few words, such as ``"visits daily"``.
    """

    name: str
    role: Role
    about: str = ""


@dataclass(frozen=True, slots=True)
class Key:
    """A key that the story names; each has a colour of its own in the picture.

    Attributes:
        name: as the story calls it, such as ``"bank.test key 2"``.
        pin: its pin.
        owner: the name of the actor who holds the private half.
    """

    name: str
    pin: Pin
    owner: str


@dataclass(frozen=True, slots=True)
class Held:
    """Pins that a client holds for a host at a moment, as its store tells.

    Attributes:
        host: the Known Pinned Host.
        pins: in the order of the store.
        include_subdomains: whether they cover the host's subdomains.
        until: when they expire, in seconds since the story began; None where they stand for good.
        static: whether they came with the agent, and from no response.
    """

    host: str
    pins: tuple[Pin, ...]
    include_subdomains: bool = False
    until: float | None = None
    static: bool = False


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened.

    Attributes:
        at: seconds since the story began, by its injected clock.
        actor: the name of who acts.
        text: what the actor did, in one line that needs no other to be understood and goes on after the actor's name,
            such as ``"visits bank.test and is served"``.
        target: the name of the actor that a visit met, or that a deed was done to; None for nobody.
        outcome: what a visit came to; None for a deed.
        host: the name that was visited.
        shown: the pins of the chain that was shown, leaf first; of a deed, those of the chain that its actor shows from
            then on, where that changes.
        pinned: the pins that the client held against it, or has noted by this visit; empty where it had none. Of a
            deed, the pins that its actor's header names from then on, where that changes.
        max_age: what that header says of it, in seconds; None for no header, or one that cannot be read.
        include_subdomains: whether that header covers subdomains.
        header: the pinning header's line, as it came with the response; of a deed, as its actor sends it from then on,
            where that changes. Empty where it sends none; None where no response came, or nothing changes.
        noting: what the response did to the Known Pinned Host: ``"noted"``, ``"updated"``, ``"removed"`` or
            ``"ignored"``; None where no response came, or one without a pinning header. Of a deed of a client, what
            that did to its own entry.
        reason: the decision in the words of the Noting, the Validation or the TLS failure.
        section: the section of RFC 7469 behind the decision, such as ``"2.6"``; empty where none decides.
        bytes_read: how many bytes of the request reached the target.
        report: of an attempt to report a violation, whether it was ``"taken"`` or ``"failed"``; else None.
        leaves: whether its actor answers nobody from then on.
        held: what each client holds right after it, by the client's name, for those where that is not as before.
    """

    at: float
    actor: str
    text: str
    target: str | None = None
    outcome: Outcome | None = None
    host: str | None = None
    shown: tuple[Pin, ...] = ()
    pinned: tuple[Pin, ...] = ()
    max_age: int | None = None
    include_subdomains: bool = False
    header: str | None = None
    noting: str | None = None
    reason: str = ""
    section: str = ""
    bytes_read: int = 0
    report: Literal["taken", "failed"] | None = None
    leaves: bool = False
    held: Mapping[str, tuple[Held, ...]] = field(default_factory=dict[str, tuple[Held, ...]])


@dataclass(frozen=True, slots=True)
class Remark:
    """One thing that the scenario asserts of what happened, and whether it holds."""

    text: str
    holds: bool


@dataclass(frozen=True, slots=True)
class Chapter:
    """A part of a story that is told step by step.

    Attributes:
        title: what it is about.
        why: why what happens in it is right, with the section of RFC 7469 that says so.
        remarks: what the scenario asserts of it.
    """

    title: str
    why: str
    remarks: list[Remark] = field(default_factory=list[Remark])

    @property
    def ok(self) -> bool:
        """Whether all of it holds, and something is asserted."""
        return bool(self.remarks) and all(remark.holds for remark in self.remarks)

    def to_dict(self, number: int) -> dict[str, object]:
        """The chapter as a JSON object."""
        happened = [{"text": remark.text, "as_it_must": remark.holds} for remark in self.remarks]
        return {"step": number, "title": self.title, "ok": self.ok, "happened": happened, "why": self.why}


@dataclass(slots=True)
class Timeline:
    """The record of one playing.

    Attributes:
        scenario: the scenario's name, such as ``"smashing-magazine"``.
        agent: the name of the user agent that the clients ran, such as ``"dynpin"``.
        actors: in the order of the lanes, from the top.
        keys: every key that the story names, in the order in which they were made.
        events: in the order of time.
        remarks: what the scenario asserts.
        chapters: the same in chapters, where the story has any.
        decisive: the visit on which the story turns: its outcome stands in the table of all scenarios.
        options: the same for what a user may opt in to, by its name: rows of their own in that table.
    """

    scenario: str
    agent: str
    actors: list[Actor] = field(default_factory=list[Actor])
    keys: list[Key] = field(default_factory=list[Key])
    events: list[Event] = field(default_factory=list[Event])
    remarks: list[Remark] = field(default_factory=list[Remark])
    chapters: list[Chapter] = field(default_factory=list[Chapter])
    decisive: Event | None = None
    options: dict[str, Event] = field(default_factory=dict[str, Event])

    @property
    def visits(self) -> list[Event]:
        """The events that are visits."""
        return [event for event in self.events if event.outcome is not None]

    def named(self, text: str) -> str:
        """A text for people: keys by their names in place of their pins, times as ``60 days`` in place of seconds."""
        for key in self.keys:
            text = text.replace(str(key.pin), key.name)
        return _SECONDS.sub(lambda found: duration(int(found[1])), text)

    @property
    def hostile_keys(self) -> list[Key]:
        """The keys of attackers."""
        attackers = {actor.name for actor in self.actors if actor.role == "attacker"}
        return [key for key in self.keys if key.owner in attackers]

    def sentence(self, event: Event) -> str:
        """What happened, with its actor, as a sentence."""
        return f"{event.actor} {self.named(event.text)}."

    @property
    def ok(self) -> bool:
        """Whether everything that the scenario asserts holds, and it asserts something."""
        return bool(self.remarks) and all(remark.holds for remark in self.remarks)

    def to_dict(self) -> dict[str, object]:
        """The record as a JSON object: attributes by their names, pins as base64."""
        told: dict[str, object] = {
            "scenario": self.scenario,
            "agent": self.agent,
            "ok": self.ok,
            "actors": [asdict(actor) for actor in self.actors],
            "keys": [{"name": key.name, "pin": str(key.pin), "owner": key.owner} for key in self.keys],
            "events": [_event_as_json(event) for event in self.events],
            "remarks": [asdict(remark) for remark in self.remarks],
        }
        # By their places among the events, for an event has no name.
        places = {id(event): index for index, event in enumerate(self.events)}
        return told | {
            "decisive": None if self.decisive is None else places[id(self.decisive)],
            "options": {name: places[id(event)] for name, event in self.options.items()},
        }

    def to_csv(self) -> str:
        """The events as CSV, a line each; the times are seconds since the story began."""
        return csv_table(
            ("at", "day", "actor", "text", "target", "host", "outcome", "noting", "reason", "section", "bytes_read"),
            (
                (
                    *(event.at, day(event.at), event.actor, self.named(event.text), event.target, event.host),
                    *(event.outcome, event.noting, self.named(event.reason), event.section, event.bytes_read),
                )
                for event in self.events
            ),
        )

    def to_html(self) -> str:
        """The events as a `<table>`."""
        return html_table(
            f"{self.scenario}, with {self.agent}",
            ("When", "What happened", "Outcome", "Why", "RFC 7469"),
            (
                (day(event.at), self.sentence(event), event.outcome, self.named(event.reason), event.section)
                for event in self.events
            ),
        )

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return self.to_html()


def _event_as_json(event: Event) -> dict[str, object]:
    held = {
        client: [asdict(each) | {"pins": list(map(str, each.pins))} for each in entries]
        for client, entries in event.held.items()
    }
    told: dict[str, object] = asdict(event)
    return told | {
        "shown": list(map(str, event.shown)),
        "pinned": list(map(str, event.pinned)),
        "held": held,
    }


def day(at: float) -> str:
    """A time of the story in words: ``"day 30"``, ``"day 30, 05:00"``; it begins on day 0, and seconds do not count."""
    days, rest = divmod(round(at), 86_400)
    hours, rest = divmod(rest, 3600)
    minutes = rest // 60
    return f"day {days:,}" + (f", {hours:02}:{minutes:02}" if hours or minutes else "")
