"""The history of a host: what it served, and since when."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import NamedTuple, TypeVar, cast

from dynpin.errors import DynpinError
from dynpin.header import ENFORCE_NAME, REPORT_ONLY_NAME, PublicKeyPins
from dynpin.hosts import canonical_host
from dynpin.pins import Pin
from dynpin.report import rfc3339

__all__ = [
    "Deployed",
    "Event",
    "Held",
    "History",
    "HistoryError",
    "Listed",
    "Planned",
    "Published",
    "event_of",
    "unique",
]

# In seconds since the epoch. What clients hold from an event on must have a date too.
_YEAR_9000 = datetime(9000, 1, 1, tzinfo=UTC).timestamp()
# How far an event may be before the last one, in seconds.
_APART = 60.0


class HistoryError(DynpinError, ValueError):
    """A history that cannot be read, or an event that does not fit; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Published:
    """From `at` on every response has `header` and no response has the one before. None: no header is sent.

    If `is_assumed`, `header` stands for unknown headers that were sent until `at`. It has the only key that clients
    surely accept, and the longest max-age that they may have got.
    """

    at: float
    header: PublicKeyPins | None
    is_assumed: bool = False


@dataclass(frozen=True, slots=True)
class Deployed:
    """From `at` on every node shows a chain with these pins, leaf first."""

    at: float
    chain: tuple[Pin, ...]


@dataclass(frozen=True, slots=True)
class Planned:
    """At `at` a rotation began: to the key `target`, with `backups` as the Backup Pins afterwards."""

    at: float
    target: Pin
    backups: tuple[Pin, ...]


@dataclass(frozen=True, slots=True)
class Listed:
    """At `at` the signed list had these pins for the host; none if it releases the host."""

    at: float
    pins: tuple[Pin, ...]


Event = Published | Deployed | Planned | Listed


@dataclass(frozen=True, slots=True)
class Held:
    """A policy that clients may hold.

    Attributes:
        header: the policy.
        first_at: when it was published.
        last_at: when the last response had it; None if it is still sent.
        until: when the last client forgets it; if it is still sent, as if that stopped now.
        is_assumed: whether it stands for unknown headers (:class:`Published`).
        node: the node that reported it; empty if it is from the history.
    """

    header: PublicKeyPins
    first_at: float
    last_at: float | None
    until: float
    is_assumed: bool = False
    node: str = ""


@dataclass(frozen=True, slots=True)
class History:
    """The events of one host, oldest first.

    Attributes:
        host: the host.
        events: the events.
        sent_by_nodes: headers that nodes with a shared state report to have sent, now or earlier; not written.
    """

    host: str
    events: tuple[Event, ...] = ()
    sent_by_nodes: tuple[Held, ...] = ()

    def with_event(self, event: Event) -> History:
        """The history with one more event; the same history if the event changes nothing.

        An event up to a minute before the last one gets the time of the last one: two commands may run at the same
        time, or on two machines.

        Raises:
            HistoryError: if it is further before the last one.
        """
        if self._holds(event):
            return self
        last = self.events[-1].at if self.events else event.at
        if last - _APART <= event.at < last:
            event = replace(event, at=last)
        if event.at < last:
            raise HistoryError(
                f"the last event of {self.host} is of {rfc3339(last)}, after {rfc3339(event.at)}. An "
                "event is recorded when it happens. If the clock of this machine was ahead then:  dynpin rotate repair"
            )
        return replace(self, events=(*self.events, event))

    def _holds(self, event: Event) -> bool:
        """Whether the last event of this kind is equal: nothing has changed."""
        last = next((each for each in reversed(self.events) if type(each) is type(event)), None)
        return last is not None and replace(last, at=event.at) == event

    def on_ramp(self, sent: Iterable[tuple[float, int | None]]) -> History:
        """The history, with the max-age values that a ramp really sent instead of the recorded ones.

        Args:
            sent: pairs of time and max-age in seconds, oldest first; None is report-only.
        """
        steps = [_Step(at, max_age) for at, max_age in sent]
        found: list[Event] = []
        recorded: PublicKeyPins | None = None
        step: _Step | None = None
        # At equal times the step comes first: a header recorded then is sent at that step.
        for each in sorted([*steps, *self.events], key=lambda each: each.at):
            match each:
                case _Step():
                    before, step = _at_step(recorded, step), each
                    if before is not None and _at_step(recorded, step) != before:
                        found.append(Published(each.at, _at_step(recorded, step)))
                case Published(is_assumed=True):
                    # Before the first step: it is unknown what was sent.
                    recorded = None
                    found.append(each)
                case Published():
                    recorded = each.header
                    published = Published(each.at, _at_step(recorded, step))
                    if published not in found[-1:]:  # equal if an earlier result of this was written
                        found.append(published)
                case _:
                    found.append(each)
        return replace(self, events=tuple(found))

    @property
    def header(self) -> PublicKeyPins | None:
        """The header that is sent now."""
        return next((event.header for event in reversed(self.events) if isinstance(event, Published)), None)

    @property
    def deployment(self) -> Deployed | None:
        """What is deployed now."""
        return next((event for event in reversed(self.events) if isinstance(event, Deployed)), None)

    @property
    def chain(self) -> tuple[Pin, ...]:
        """The pins of the chain that is deployed now."""
        return self.deployment.chain if self.deployment else ()

    @property
    def rotation(self) -> Planned | None:
        """The rotation that began last, finished or not."""
        return next((event for event in reversed(self.events) if isinstance(event, Planned)), None)

    @property
    def listed(self) -> Listed | None:
        """The content of the signed list when it was last read."""
        return next((event for event in reversed(self.events) if isinstance(event, Listed)), None)

    def to_json(self) -> str:
        """The history as the text of its file."""
        return json.dumps(
            {"version": 1, "host": self.host, "events": [_written(each) for each in self.events]}, indent=2
        )

    @classmethod
    def from_json(cls, text: str | bytes) -> History:
        """Read a history's file.

        Raises:
            HistoryError: if the text is not a history.
        """
        try:
            loaded = _object(json.loads(text, object_pairs_hook=unique))
            version = _kept(loaded["version"], int, "version")
            if version != 1:
                raise ValueError(f"version {version} is not known")  # noqa: TRY301 - one place for all
            history = cls(canonical_host(_kept(loaded["host"], str, "host")))
            for number, each in enumerate(_list(loaded, "events"), 1):
                try:
                    history = history.with_event(event_of(each))
                except HistoryError as error:
                    raise ValueError(f"event {number}: {error}") from None
            _refuse_others(loaded, ("version", "host", "events"))
        except (KeyError, ValueError, RecursionError) as error:
            raise HistoryError(f"this is not a rotation history: {_why(error)}") from None
        return history


def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object of JSON, for ``object_pairs_hook``. A merge of two files can write a key twice, and one value is lost.

    Raises:
        ValueError: if a key is there twice.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)} is there twice")
    return found


def _refuse_others(entry: dict[str, object], known: Collection[str]) -> None:
    """Refuse what this version would ignore, and lose at the next change."""
    other = next((name for name in entry if name not in known), None)
    if other is not None:
        raise ValueError(f"{other} is not known")


def _why(error: Exception) -> str:
    match error:
        case json.JSONDecodeError():
            return f"it is not JSON (line {error.lineno}, column {error.colno}: {error.msg})"
        case UnicodeDecodeError():
            return f"it is not a text (byte {error.start})"
        case KeyError():
            return f"{error} is missing"
        case RecursionError():
            return "it is nested too deeply"
        case _:
            return str(error)


class _Step(NamedTuple):
    at: float
    max_age: int | None


def _at_step(header: PublicKeyPins | None, step: _Step | None) -> PublicKeyPins | None:
    """The header as sent at a step of a ramp. A header that unpins is not changed by a ramp."""
    if header is None or step is None or header.max_age == 0:
        return header
    return replace(header, max_age=step.max_age, report_only=step.max_age is None)


def _written(event: Event) -> dict[str, object]:
    # To the microsecond: if the time were cut to the second, a header could end before its last response.
    at = datetime.fromtimestamp(event.at, UTC).isoformat().replace("+00:00", "Z")
    match event:
        case Published():
            written: dict[str, object] = {
                "at": at,
                "event": "published",
                "name": event.header.name if event.header else None,
                "header": str(event.header) if event.header else None,
            }
            return written | {"assumed": True} if event.is_assumed else written
        case Deployed():
            return {"at": at, "event": "deployed", "chain": [str(pin) for pin in event.chain]}
        case Planned():
            backups = [str(pin) for pin in event.backups]
            return {"at": at, "event": "planned", "target": str(event.target), "backups": backups}
        case Listed():
            return {"at": at, "event": "listed", "pins": [str(pin) for pin in event.pins]}


def event_of(entry: object) -> Event:
    """One event from a history's file.

    Raises:
        HistoryError: if it is not an event.
    """
    try:
        event = _event_of(_object(entry))
        _refuse_others(_object(entry), {*_written(event), *(["assumed"] if isinstance(event, Published) else [])})
    except (KeyError, ValueError) as error:
        raise HistoryError(_why(error)) from None
    return event


def _event_of(entry: dict[str, object]) -> Event:
    at = _time(_kept(entry["at"], str, "at"))
    match entry["event"]:
        case "published":
            is_assumed = _kept(entry.get("assumed", False), bool, "assumed")
            if entry["header"] is None and entry["name"] is None:
                return Published(at, None, is_assumed)
            name, value = _kept(entry["name"], str, "name"), _kept(entry["header"], str, "header")
            if name not in (ENFORCE_NAME, REPORT_ONLY_NAME):
                raise ValueError(f"a header {name!r} is not known")
            return Published(at, PublicKeyPins.parse(value, report_only=name == REPORT_ONLY_NAME), is_assumed)
        case "deployed":
            chain = _pins(entry, "chain")
            if not chain:
                raise ValueError("chain is empty")
            return Deployed(at, chain)
        case "planned":
            return Planned(at, Pin.from_base64(_kept(entry["target"], str, "target")), _pins(entry, "backups"))
        case "listed":
            return Listed(at, _pins(entry, "pins"))
        case other:
            raise ValueError(f"an event {other!r} is not known")


def _time(text: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None and 0 <= (at := moment.timestamp()) < _YEAR_9000:
            return at
    except (ValueError, OverflowError):
        pass
    raise ValueError(f"{text!r} is not a time with its time zone, from 1970 to 8999")


def _pins(entry: dict[str, object], name: str) -> tuple[Pin, ...]:
    return tuple(Pin.from_base64(_kept(each, str, name)) for each in _list(entry, name))


def _object(value: object) -> dict[str, object]:
    return cast("dict[str, object]", _kept(value, dict, "it"))


def _list(entry: dict[str, object], name: str) -> list[object]:
    return cast("list[object]", _kept(entry[name], list, name))


_Kind = TypeVar("_Kind")


def _kept(value: object, kind: type[_Kind], name: str) -> _Kind:
    """A value that was written as this kind; a damaged file may have another one."""
    if type(value) is not kind:
        raise ValueError(f"{name} is damaged")
    return value
