"""A policy and a calendar as clients meet them: periods in which nothing changes, and the rules in each.

This module has no rules of its own. :func:`dynpin.validation.validate` compares each chain with each set of pins once,
:func:`dynpin.noting.note` notes each header once, and the results are kept as tables.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from dynpin.header import PublicKeyPins
from dynpin.hosts import KnownPinnedHost
from dynpin.lab.simulation.calendar import Attack, Event, Site
from dynpin.lab.simulation.site_policy import SitePolicy
from dynpin.noting import note
from dynpin.pins import Pin
from dynpin.validation import validate

__all__ = ["HOST", "KEPT", "NO_ENTRY", "Epoch", "Face", "Rules", "World", "build"]

HOST = "site.test"
# Values in the tables: a client without an entry, and an entry that a response does not change.
NO_ENTRY, KEPT = 0, -1


@dataclass(frozen=True)
class Face:
    """The answer to a client's connection: the pins of the validated chain, and the header of the response."""

    chain: tuple[Pin, ...]
    header: PublicKeyPins | None


@dataclass(frozen=True)
class Epoch:
    """A period in which nothing changes.

    Attributes:
        start: its first second.
        end: the second after its last.
        site: the index of the site's face.
        attacks: for each current attack, its number in the calendar and the index of its face.
        version: the version of the signed list, counted from 1; 0 if there is none.
    """

    start: int
    end: int
    site: int
    attacks: tuple[tuple[int, int], ...]
    version: int = 0


@dataclass(frozen=True)
class Rules:
    """The behaviour of clients, by their entry (rows; 0 is none) and by the face that they meet (columns).

    Attributes:
        accepts: whether Pin Validation accepts the connection.
        becomes: the entry after the response: a row, `NO_ENTRY` if it is removed, or `KEPT`.
        max_age: for how many seconds the header of each face is kept.
    """

    accepts: NDArray[np.bool_]
    becomes: NDArray[np.int64]
    max_age: NDArray[np.int64]


@dataclass(frozen=True)
class World:
    """A policy in its calendar, ready to be played.

    Attributes:
        epochs: from second 0 to the horizon, without a gap.
        faces: the possible answers to clients.
        entries: the pins of each entry that a client can have; the first is none.
        rules: the behaviour of clients.
        attacks: the attacks of the calendar, in its order; if two reach the same client, the first one counts.
        lists: the entry row of each version of the signed list, from version 1 on.
    """

    epochs: tuple[Epoch, ...]
    faces: tuple[Face, ...]
    entries: tuple[tuple[Pin, ...], ...]
    rules: Rules
    attacks: tuple[Attack, ...]
    lists: tuple[int, ...] = ()


def build(
    policy: SitePolicy, events: Iterable[Event], horizon: int, max_max_age: int, *, signed_after: int | None = None
) -> World:
    """Make the world of a policy and its calendar.

    Args:
        policy: the policy.
        events: the calendar.
        horizon: until when, in seconds.
        max_max_age: the clients' cap on max-age, in seconds.
        signed_after: how long after each change the signed list has the same pins; None if there is no list.
    """
    events = tuple(events)
    attacks = tuple(event for event in events if isinstance(event, Attack))
    sites = _sites(policy, events)
    lists = _lists(policy, sites, signed_after)
    cuts = {0, horizon, *sites, *lists}
    cuts.update(second for attack in attacks for second in (attack.second, attack.until))
    ramped = 0
    for _, lasts in policy.ramp:
        ramped += lasts
        cuts.add(ramped)
    faces: dict[Face, int] = {}
    epochs: list[Epoch] = []
    site, version = Site.of(policy), 0
    for start, end in pairwise(sorted(cut for cut in cuts if cut <= horizon)):
        site = sites.get(start, site)
        version += start in lists
        shown = faces.setdefault(_face_of(site, policy, policy.max_age_at(start)), len(faces))
        going_on = tuple(
            (number, faces.setdefault(_face_of_attack(attack, site), len(faces)))
            for number, attack in enumerate(attacks)
            if attack.second <= start < attack.until
        )
        if epochs and (epochs[-1].site, epochs[-1].attacks, epochs[-1].version) == (shown, going_on, version):
            epochs[-1] = replace(epochs[-1], end=end)
        else:
            epochs.append(Epoch(start, end, shown, going_on, version))
    entries, rules = _rules(tuple(faces), tuple(lists.values()), max_max_age)
    return World(
        tuple(epochs), tuple(faces), entries, rules, attacks, tuple(entries.index(each) for each in lists.values())
    )


def _lists(policy: SitePolicy, sites: Mapping[int, Site], signed_after: int | None) -> dict[int, tuple[Pin, ...]]:
    """The pins in each version of the signed list, by the second at which it is published."""
    if signed_after is None or policy.pinned == "none":
        return {}
    said: dict[int, tuple[Pin, ...]] = {}
    for second in (0, *(change + signed_after for change in sorted(sites))):
        last = max((change for change in sites if change <= second), default=None)
        site = Site.of(policy) if last is None else sites[last]
        pins = tuple(_pin(key) for key in site.pins(policy.pinned))
        if pins != next(reversed(said.values()), ()):
            said[second] = pins
    return said


def _sites(policy: SitePolicy, events: Sequence[Event]) -> dict[int, Site]:
    """The site after each second at which it changes."""
    steps = [
        (change.second, number, change)
        for number, event in enumerate(events)
        if not isinstance(event, Attack)
        for change in event.changes(policy)
    ]
    site = Site.of(policy)
    before: dict[int, Site] = {}
    sites: dict[int, Site] = {}
    for second, number, change in sorted(steps, key=lambda step: step[:2]):
        before.setdefault(number, site)
        site = sites[second] = change.apply(before[number], site)
    return sites


def _face_of(site: Site, policy: SitePolicy, max_age: int) -> Face:
    chain = tuple(_pin(key) for key in site.chain)
    if policy.pinned == "none" or site.mistaken("no-header"):
        return Face(chain, None)
    if site.mistaken("max-age"):
        max_age *= 1000
    pins = tuple(_pin(key) for key in site.pins(policy.pinned))
    return Face(chain, _header(pins, 0 if site.unpinning else max_age))


def _face_of_attack(attack: Attack, site: Site) -> Face:
    pins = tuple(_pin(key) for key in attack.pins(site))
    return Face(tuple(_pin(key) for key in attack.chain(site)), _header(pins, attack.pins_for) if pins else None)


def _header(pins: tuple[Pin, ...], max_age: int) -> PublicKeyPins:
    # Parsed as a client does, with its cap on max-age.
    return PublicKeyPins.parse(str(PublicKeyPins(pins, max_age=max_age)))


def _rules(
    faces: tuple[Face, ...], lists: tuple[tuple[Pin, ...], ...], max_max_age: int
) -> tuple[tuple[tuple[Pin, ...], ...], Rules]:
    named = dict.fromkeys((*(face.header.pins for face in faces if face.header is not None), *lists))
    entries = ((), *named)
    accepts = np.ones((len(entries), len(faces)), np.bool_)
    becomes = np.full((len(entries), len(faces)), KEPT, np.int64)
    max_age = np.zeros(len(faces), np.int64)
    for row, pins in enumerate(entries):
        known = KnownPinnedHost(HOST, pins, False, None, 0.0, 1.0) if row else None
        for column, face in enumerate(faces):
            accepts[row, column] = validate(HOST, known, face.chain, now=0.0).ok
            noting = note(HOST, known, face.header, face.chain, 0.0, max_max_age=max_max_age)
            if noting.outcome == "removed":
                becomes[row, column] = NO_ENTRY
            elif noting.known_host is not None and noting.known_host.expires_at is not None:
                becomes[row, column] = entries.index(noting.known_host.pins)
                max_age[column] = round(noting.known_host.expires_at)
    return entries, Rules(accepts, becomes, max_age)


@lru_cache(maxsize=4096)
def _pin(key: str) -> Pin:
    return Pin(hashlib.sha256(key.encode()).digest())
