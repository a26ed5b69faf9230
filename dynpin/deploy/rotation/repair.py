"""A damaged history: what can still be read of it, and what has to be assumed for the rest."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

from dynpin.errors import InvalidHost
from dynpin.header import PublicKeyPins
from dynpin.hosts import canonical_host
from dynpin.pins import Pin

from .history import Deployed, Event, History, HistoryError, Published, event_of

__all__ = ["Saved", "in_order", "salvage", "with_unknown"]

_HOST = re.compile(r'"host"\s*:\s*"([^"\\]+)"')
# An event holds no object inside, so each begins at a brace; "events" and "host" stand outside of all.
_EVENT = re.compile(r'\{[^{}]*?"event"')


@dataclass(frozen=True, slots=True)
class Saved:
    """What can be read of a damaged history.

    Attributes:
        host: whose it is; None if that cannot be read.
        events: the events, in the order of the file.
        unread: what is in place of an event and cannot be read, with the reason, a line each.
        is_cut: whether the file as a whole cannot be read, so that events may be missing without a trace.
    """

    host: str | None
    events: tuple[Event, ...]
    unread: tuple[str, ...] = ()
    is_cut: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether every event that was ever in the file is there."""
        return not self.unread and not self.is_cut


def salvage(data: bytes) -> Saved:
    """Read what can be read."""
    text = data.decode("utf-8", "replace")
    try:
        loaded: object = json.loads(text)
    except (ValueError, RecursionError):
        loaded = None
    top = cast("dict[str, object]", loaded) if isinstance(loaded, dict) else {}
    listed = top.get("events")
    is_cut = not isinstance(listed, list)
    entries = [(each, json.dumps(each)) for each in cast("list[object]", listed)] if not is_cut else _entries(text)
    events: list[Event] = []
    unread: list[str] = []
    for entry, source in entries:
        try:
            events.append(event_of(entry))
        except HistoryError as error:
            unread.append(f"{_short(source)}: {error}")
    return Saved(_host(text), tuple(events), tuple(unread), is_cut)


def _host(text: str) -> str | None:
    found = _HOST.search(text)
    try:
        return None if found is None else canonical_host(found[1])
    except InvalidHost:
        return None


def _entries(text: str) -> list[tuple[object, str]]:
    """Whatever stands in place of an event in a text that is not JSON as a whole."""
    decoder = json.JSONDecoder()
    found: list[tuple[object, str]] = []
    for match in _EVENT.finditer(text):
        try:
            entry: object = decoder.raw_decode(text, match.start())[0]
        except (ValueError, RecursionError):
            entry = None
        found.append((entry, text[match.start() :].partition("}")[0]))
    return found


def _short(source: str) -> str:
    text = " ".join(source.split())
    return text if len(text) <= 100 else f"{text[:100]}..."


def in_order(saved: Saved, host: str, now: float) -> History:
    """The history of what was saved.

    An event in the future is moved to `now`, and one before its predecessor to that one's time. Later is the safe side:
    what an event ends is then taken to have been sent for longer.

    Args:
        saved: what was saved.
        host: whose history it is.
        now: seconds since the epoch, UTC.
    """
    history = History(host)
    for event in saved.events:
        last = history.events[-1].at if history.events else event.at
        history = history.with_event(replace(event, at=min(now, max(event.at, last))))
    return history


def with_unknown(
    history: History, header: PublicKeyPins | None, chain: Sequence[Pin], now: float, *, longest: int
) -> History:
    """The history for which nobody knows what else was sent until now.

    Clients are taken to hold, from `now` on for the longest max-age, a header that names nothing but the deployed key.

    Args:
        history: what is known.
        header: what every response carries now.
        chain: the chain that every node shows now, leaf first.
        now: seconds since the epoch, UTC.
        longest: the longest max-age that the site may have sent, in seconds; what the history has counts too.
    """
    sent = [each.header.max_age or 0 for each in history.events if isinstance(each, Published) and each.header]
    # A client notes no header that misses the chain (RFC 7469 §2.5): this key stood in each that was noted.
    key = next((pin for pin in chain if header is not None and pin in header.pins), chain[0])
    unknown = Published(now, PublicKeyPins((key,), max([longest, *sent])), is_assumed=True)
    return history.with_event(unknown).with_event(Published(now, header)).with_event(Deployed(now, tuple(chain)))
