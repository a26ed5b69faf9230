"""The record of a scenario, as data. The pages, the pictures, the terminal and the tests all read it.

A scenario is played with one user agent (dynpin itself, or a model of another); a :class:`Timeline` is the record.
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

# The outcome of a visit. "served": the true site answered. "fooled": somebody else read the request. "protected": Pin
# Validation refused somebody else. "locked-out": it refused the true site. "failed": TLS or the network failed for a
# reason other than pins.
Outcome = Literal["served", "fooled", "protected", "locked-out", "failed"]


@dataclass(frozen=True, slots=True)
class Actor:
    """An actor in the story: a lane of the picture.

    Attributes:
        name: its name in the story, such as ``"bank.test"`` or ``"Alice"``.
        role: ``"authority"``, ``"site"``, ``"attacker"`` or ``"client"``.
        about: a few words about it, such as ``"visits daily"``.
    """

    name: str
    role: Role
    about: str = ""


@dataclass(frozen=True, slots=True)
class Key:
    """A key with a name in the story; each has a colour of its own in the picture.

    Attributes:
        name: its name in the story, such as ``"bank.test key 2"``.
        pin: its pin.
        owner: the name of the actor who has the private half.
    """

    name: str
    pin: Pin
    owner: str


@dataclass(frozen=True, slots=True)
class Held:
    """Pins that a client holds for a host at one time, from its store.

    Attributes:
        host: the Known Pinned Host.
        pins: in the order of the store.
        include_subdomains: whether they cover the host's subdomains.
        until: when they expire, in seconds since the story began; None for never.
        static: whether they came with the agent, and not from a response.
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
        actor: the name of the actor.
        text: what the actor did: one line that is complete without others and continues the actor's name, such as
            ``"visits bank.test and is served"``.
        target: the name of the actor that a visit reached, or that an action was done to; None for nobody.
        outcome: the outcome of a visit; None for other actions.
        host: the name that was visited.
        shown: the pins of the chain that the client has built, leaf first; if it reports none, of the chain that the
            server sent, which has no root. For an action: the pins of the chain that its actor
            shows from then on, if that changes.
        pinned: the pins that the client held for the visit, or that it noted in the visit; empty if it had none. For an
            action: the pins in its actor's header from then on, if that changes.
        max_age: the max-age in that header, in seconds; None if there is no header, or none that can be parsed.
        include_subdomains: whether that header covers subdomains.
        header: the line of the pinning header in the response. For an action: the line that its actor sends from then
            on, if that changes. Empty if there is no header; None if there was no response, or if nothing changes.
        noting: what the response did to the Known Pinned Host: ``"noted"``, ``"updated"``, ``"removed"`` or
            ``"ignored"``; None if there was no response or no pinning header. For a client's action: what it did to the
            client's own entry.
        reason: the reason in the Noting, the Validation or the TLS failure.
        section: the section of RFC 7469 behind the decision, such as ``"2.6"``; empty if there is none.
        bytes_read: how many bytes of the request reached the target.
        report: for an attempt to report a violation, ``"taken"`` or ``"failed"``; else None.
        leaves: whether its actor answers nobody from then on.
        held: what clients hold right after it, by the client's name; only clients for which it has changed.
        lapsed: the hosts whose pins had expired by the client's own clock and are gone since the event before, by the
            client's name.
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
    lapsed: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])


@dataclass(frozen=True, slots=True)
class Remark:
    """An assertion of the scenario, and whether it holds."""

    text: str
    holds: bool


@dataclass(frozen=True, slots=True)
class Chapter:
    """A part of a story that is told step by step.

    Attributes:
        title: its subject.
        why: why its events are right, with the section of RFC 7469.
        remarks: its assertions.
    """

    title: str
    why: str
    remarks: list[Remark] = field(default_factory=list[Remark])

    @property
    def ok(self) -> bool:
        """Whether it has assertions and all of them hold."""
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
        keys: the keys with names in the story, in the order in which they were made.
        events: in the order of time.
        remarks: the assertions of the scenario.
        chapters: the same in chapters, if the story has any.
        decisive: the visit that decides the story: the table of all scenarios shows its outcome.
        options: the same for the options of a user, by name: they have rows of their own in that table.
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
        """A text for people: with the names of keys instead of pins, and with ``60 days`` instead of seconds."""
        for key in self.keys:
            text = text.replace(str(key.pin), key.name)
        return _SECONDS.sub(lambda found: duration(int(found[1])), text)

    @property
    def hostile_keys(self) -> list[Key]:
        """The keys of attackers."""
        attackers = {actor.name for actor in self.actors if actor.role == "attacker"}
        return [key for key in self.keys if key.owner in attackers]

    def sentence(self, event: Event) -> str:
        """The event with its actor, as a sentence."""
        return f"{event.actor} {self.named(event.text)}."

    @property
    def ok(self) -> bool:
        """Whether the scenario has assertions and all of them hold."""
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
        # By their indices among the events, since an event has no name.
        places = {id(event): index for index, event in enumerate(self.events)}
        return told | {
            "decisive": None if self.decisive is None else places[id(self.decisive)],
            "options": {name: places[id(event)] for name, event in self.options.items()},
        }

    def to_csv(self) -> str:
        """The events as CSV, one line for each; times are seconds since the story began."""
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
        """The table, for a notebook."""
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
    """A time of the story in words: ``"day 30"``, ``"day 30, 05:00"``. It begins on day 0; seconds are left out."""
    days, rest = divmod(round(at), 86_400)
    hours, rest = divmod(rest, 3600)
    minutes = rest // 60
    return f"day {days:,}" + (f", {hours:02}:{minutes:02}" if hours or minutes else "")
