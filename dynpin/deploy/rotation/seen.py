"""Compare what a site really sends and shows with its history and plan: a step is done only when it was seen.

A place is the inventory of the site, or one of its nodes. This module reads no file, and uses no network.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from dynpin.header import PublicKeyPins
from dynpin.noting import note
from dynpin.pins import Pin
from dynpin.report import rfc3339

from .history import Deployed, Event, Held, History, Listed, Published
from .machine import Step, advance, bridge_header, held, locked_out, old_pins, status

__all__ = ["ListSight", "Missing", "NotSeen", "Sight", "disagreements", "done"]


@dataclass(frozen=True, slots=True)
class Sight:
    """What one place sends and shows.

    Attributes:
        place: its name: the path of the ``dynpin.toml``, or the address of a node.
        header: the header that it sends, or None.
        chains: the pins of each chain that it shows, leaf first. A node shows one: the validated one.
        is_live: whether it is a node.
        failure: why nothing could be seen; None if all is well.
    """

    place: str
    header: PublicKeyPins | None
    chains: tuple[tuple[Pin, ...], ...]
    is_live: bool = False
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class ListSight:
    """The published list's pins for the host, as a client reads them.

    Attributes:
        place: a folder, or its URI.
        pins: the pins for the host; none if the list releases it or does not name it.
        failure: why a client would not accept the list; None if it would.
    """

    place: str
    pins: tuple[Pin, ...] = ()
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class Missing:
    """Something that should be at a place and is not, and what to do.

    Attributes:
        place: the place.
        what: what is missing, a sentence without its full stop.
        advice: the next step, a sentence without its full stop.
    """

    place: str
    what: str
    advice: str

    def __str__(self) -> str:
        return f"{self.place}: {self.what}. {self.advice}."

    def to_dict(self) -> dict[str, object]:
        """The object as JSON."""
        return {"place": self.place, "what": self.what, "advice": self.advice}


class NotSeen(Exception):
    """A step is not done; lists what is missing."""

    def __init__(self, step: Step, missing: Sequence[Missing]) -> None:
        super().__init__(step, missing)
        self.step = step
        self.missing = tuple(missing)

    def __str__(self) -> str:
        return "\n".join([f"the step {self.step.name} is not done:", *(f"  {each}" for each in self.missing)])


def done(
    history: History,
    sights: Sequence[Sight],
    now: float,
    *,
    listed: ListSight | None = None,
    max_max_age: int | None = None,
) -> History:
    """The history with the next step recorded as done at `now`.

    It records what the places send and show, not what was planned.

    Args:
        history: what has been served so far.
        sights: the inventory, the nodes, or both; at least one.
        now: the time of the sights, in seconds since the epoch, UTC.
        listed: the published list, for the step `sign`.
        max_max_age: the cap on max-age of all clients, in seconds, if it is known.

    Raises:
        ValueError: if there is no step, or if it is too early.
        NotSeen: if the step is not done at any of the places.
    """
    planned = advance(history, now, max_max_age=max_max_age)
    step = status(history, now, max_max_age=max_max_age).step
    assert step is not None  # noqa: S101 - advance has looked
    policies = held(history, now, max_max_age=max_max_age)
    missing = [each for sight in sights for each in _missing(sight, step, history, policies, sights)]
    if isinstance(planned, Listed):
        missing += _missing_in_list(planned.pins, listed)
    if missing:
        raise NotSeen(step, missing)
    events: list[Event] = [Published(now, _sent(sights))]
    if isinstance(planned, Listed):
        events.append(planned)
    if isinstance(planned, Deployed):
        events.append(Deployed(now, _shown(planned.chain[0], sights)))
    for event in events:
        history = history.with_event(event)
    return history


def _missing_in_list(pins: Sequence[Pin], listed: ListSight | None) -> Iterator[Missing]:
    """The differences between the published list and exactly these pins."""
    if listed is None:
        yield Missing("the signed list", "it was not looked at", "Name the published folder, or uri, with --list")
        return
    if listed.failure is not None:
        yield Missing(listed.place, listed.failure, "Publish it, and ask again: dynpin recovery status says more")
        return
    signing = "Do: dynpin recovery sign dynpin.toml, then dynpin recovery publish FOLDER"
    for pin in pins:
        if pin not in listed.pins:
            yield Missing(listed.place, f"the signed list does not name {pin}, which the header names", signing)
    for pin in listed.pins:
        if pin not in pins:
            yield Missing(listed.place, f"the signed list names {pin}, which the header does not name", signing)


def disagreements(history: History, sight: Sight, now: float) -> tuple[Missing, ...]:
    """The differences between a history and a place, in the header that it sends and the chain that it shows."""
    if sight.failure is not None:
        return (Missing(sight.place, sight.failure, _next_step(sight)),)
    return tuple(_differences(history, sight, now))


def _differences(history: History, sight: Sight, now: float) -> Iterator[Missing]:
    record = "If that is what every node sends and shows, record it: dynpin rotate "
    record += "next --done if it is the next step, else dynpin rotate record" if history.rotation else "record"
    back = "Name the key that it lacks again: a roll-back needs it until dynpin rotate next says to retire it"
    refused = [policies for chain in sight.chains if (policies := locked_out(held(history, now), chain))]
    if refused:
        yield _locks_out(sight, [policy.until for policies in refused for policy in policies])
    header, sent = history.header, sight.header
    if _terms(header) != _terms(sent):
        what = f"the header is not the one that the history has as sent: {_by(header, sent)}"
        is_early = sent is not None and not _needed_for_now(history, now) <= set(sent.pins)
        yield Missing(sight.place, what, back if is_early else record)
    chain = history.chain
    if not chain or not sight.chains:
        return
    leaves = [each[0] for each in sight.chains if each]
    named = set(header.pins) if header is not None else set[Pin]()
    shown = next((each for each in sight.chains if each and each[0] == chain[0]), None)
    if shown is None:
        keys = ", ".join(map(str, leaves))
        yield Missing(sight.place, f"the deployed key is {keys}, and the history has {chain[0]}", record)
    elif named.intersection(chain) - set(shown):
        lost = ", ".join(map(str, named.intersection(chain) - set(shown)))
        yield Missing(sight.place, f"the chain lacks {lost}, which the history has in it and the header names", record)


def _needed_for_now(history: History, now: float) -> set[Pin]:
    """The pins in the current header of keys that are or were deployed, until they may be retired."""
    step = status(history, now).step
    if history.header is None or step is None or (step.name == "retire" and step.at <= now):
        return set()
    shown = {pin for event in history.events if isinstance(event, Deployed) for pin in event.chain}
    return shown.intersection(history.header.pins)


def _terms(header: PublicKeyPins | None) -> tuple[object, ...]:
    if header is None:
        return ()
    return (frozenset(header.pins), header.max_age, header.include_subdomains, header.report_only, header.recovery)


def _by(recorded: PublicKeyPins | None, sent: PublicKeyPins | None) -> str:
    """The differences between the recorded header and the one that is sent."""
    if sent is None or recorded is None:
        return "there is none" if sent is None else "none is recorded"
    found = [f"it names {pin} too" for pin in sent.pins if pin not in recorded.pins]
    found += [f"it lacks {pin}" for pin in recorded.pins if pin not in sent.pins]
    if sent.report_only != recorded.report_only:
        found.append(f"it is {sent.name}, not {recorded.name}")
    elif sent.max_age != recorded.max_age:
        found.append(f"its max-age is {sent.max_age}, not {recorded.max_age}")
    if sent.include_subdomains != recorded.include_subdomains:
        found.append("it has includeSubDomains" if sent.include_subdomains else "it has no includeSubDomains")
    if sent.recovery != recorded.recovery:
        found.append("it names no recovery root" if sent.recovery is None else f"it names the list {sent.recovery.uri}")
    return ", ".join(found)


def _missing(
    sight: Sight, step: Step, history: History, policies: Sequence[Held], sights: Sequence[Sight]
) -> Iterator[Missing]:
    """What is missing at one place, for a step that should be done."""
    if sight.failure is not None:
        yield Missing(sight.place, sight.failure, _next_step(sight))
        return
    rotation = history.rotation
    assert rotation is not None  # noqa: S101 - there is a step
    header = sight.header
    if header is None or header.report_only or not header.max_age:
        what = "no header is sent" if header is None else f"{header.name} is sent, and clients note nothing from it"
        what = "the header unpins" if header is not None and header.max_age == 0 else what
        yield Missing(
            sight.place, what, "Send Public-Key-Pins with a max-age" if sight.is_live else "Set [policy] mode"
        )
        return
    needed, gone = _pins_of(step, history)
    for pin in needed:
        if pin not in header.pins:
            yield _lacks(sight, step, pin, _role(pin, history))
    for pin in gone:
        if pin in header.pins:
            advice = "Make this node follow dynpin.toml" if sight.is_live else "Take it out of keys and backups here"
            yield Missing(sight.place, f"the header still names {pin}, the old key", advice)
    chains = [chain for chain in sight.chains if chain]
    target = rotation.target
    if step.name in ("deploy", "retire") and not any(target in chain for chain in chains):
        keys = ", ".join(str(chain[0]) for chain in chains) or "none"
        advice = "Deploy the new chain there, and reload it" if sight.is_live else "Name the new chain in keys"
        if not (sight.is_live and _is_another_chain(chains, sights, history)):
            yield Missing(sight.place, f"the new key {target} is not deployed: the deployed key is {keys}", advice)
    # At every step: no chain that is shown may lock out clients with a header that was sent.
    refused = [policy.until for chain in chains for policy in locked_out(policies, chain)]
    if refused:
        yield _locks_out(sight, refused)
    if sight.is_live:
        yield from _unlike_the_others(sight, sights)
        noting = note(history.host, None, header, chains[0] if chains else (), 0.0)
        if noting.outcome not in ("noted", "updated"):
            yield Missing(sight.place, f"clients do not note the header: {noting.reason}", "dynpin check says more")


def _pins_of(step: Step, history: History) -> tuple[tuple[Pin, ...], tuple[Pin, ...]]:
    """The pins that the header must have after this step, and those that it must not have."""
    rotation = history.rotation
    assert rotation is not None  # noqa: S101 - there is a step
    if step.name == "retire":
        return (rotation.target,), old_pins(history)
    if step.name == "sign":
        return (() if history.header is None else history.header.pins), ()
    # Until the old pin is retired, the header has the old key and the new one.
    return bridge_header(history, rotation).pins, ()


def _role(pin: Pin, history: History) -> str:
    rotation = history.rotation
    if rotation is not None and pin == rotation.target:
        return "the new key"
    return "the deployed key" if pin in history.chain else "a backup key of the plan"


def _lacks(sight: Sight, step: Step, pin: Pin, role: str) -> Missing:
    if sight.is_live:
        advice = "Make this node send the header of dynpin.toml (is it reloaded?)"
    elif role == "the deployed key" and step.name == "deploy":
        advice = "Leave the old chain in backups until the old pin is retired: a roll-back needs it"
    else:
        advice = (
            "Name the file of that key in backups of this file" if role != "the deployed key" else "Name it in keys"
        )
    return Missing(sight.place, f"the header does not name {pin}, {role}", advice)


def _next_step(sight: Sight) -> str:
    return "Look why, and ask again" if sight.is_live else "Correct it; dynpin lint says more"


def _locks_out(sight: Sight, until: Iterable[float]) -> Missing:
    last = rfc3339(max(until))
    keys = ", ".join(str(chain[0]) for chain in sight.chains if chain)
    return Missing(
        sight.place,
        f"the deployed key {keys} locks out clients, the last of them until {last}",
        "Deploy the former chain again, whose key they hold. If it is lost: dynpin rotate emergency key-lost",
    )


def _is_another_chain(chains: Sequence[tuple[Pin, ...]], sights: Sequence[Sight], history: History) -> bool:
    """Whether a node shows another one of the inventory's chains, such as RSA instead of EC."""
    known = {chain[0] for sight in sights if not sight.is_live for chain in sight.chains if chain}
    return bool(chains) and chains[0][0] in known and chains[0][0] not in history.chain


def _unlike_the_others(sight: Sight, sights: Sequence[Sight]) -> Iterator[Missing]:
    """The differences between nodes: clients would note another header at each visit."""
    first = next(each for each in sights if each.header is not None and not each.header.report_only)
    assert first.header is not None  # noqa: S101 - it was chosen so
    if sight.header is not None and set(sight.header.pins) != set(first.header.pins):
        differs = _by(first.header, replace(sight.header, max_age=first.header.max_age))
        advice = "Make every node send the same pins"
        yield Missing(sight.place, f"the header is not that of {first.place}: {differs}", advice)


def _sent(sights: Sequence[Sight]) -> PublicKeyPins:
    """The header that all places send. If its max-age differs, the longest: some client holds that."""
    headers = [sight.header for sight in sights if sight.header is not None]
    return max(headers, key=lambda header: header.max_age or 0)


def _shown(target: Pin, sights: Sequence[Sight]) -> tuple[Pin, ...]:
    """The chain of the new key, as a place shows it."""
    return next(chain for sight in sights for chain in sight.chains if target in chain)
