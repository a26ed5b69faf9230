"""A damaged history: what can still be read, and what must be assumed for the rest."""

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

from .history import Deployed, Event, History, HistoryError, Published, event_of, unique

__all__ = ["Saved", "in_order", "salvage", "with_unknown"]

_HOST = re.compile(r'"host"\s*:\s*"([^"\\]+)"')
# An event contains no object, so each begins at a brace; "events" and "host" are outside all events.
_EVENT = re.compile(r'\{[^{}]*?"event"')


@dataclass(frozen=True, slots=True)
class Saved:
    """The readable part of a damaged history.

    Attributes:
        host: its host; None if that cannot be read.
        events: the events, in the order of the file.
        unread: the parts that should be events but cannot be read, each with the reason, one line each.
        is_cut: whether the whole file cannot be parsed, so that events may be missing without a trace.
    """

    host: str | None
    events: tuple[Event, ...]
    unread: tuple[str, ...] = ()
    is_cut: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether all events that were ever in the file are there."""
        return not self.unread and not self.is_cut


def salvage(data: bytes) -> Saved:
    """Read all that can be read."""
    text = data.decode("utf-8", "replace")
    try:
        loaded: object = json.loads(text, object_pairs_hook=unique)
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
    """The parts in the places of events, in a text that is not JSON as a whole."""
    decoder = json.JSONDecoder(object_pairs_hook=unique)
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
    """A history from the saved events.

    An event in the future is moved to `now`, and one before its predecessor to that one's time. A later time is safe:
    the header that ends with the event then counts as sent for longer.

    Args:
        saved: the readable part.
        host: the host of the history.
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
    """The history, if it is unknown what else was sent until now.

    From `now` on clients are assumed to hold, for the longest max-age, a header with only the deployed key.

    Args:
        history: the known events.
        header: the header in every response now.
        chain: the chain that every node shows now, leaf first.
        now: seconds since the epoch, UTC.
        longest: the longest max-age that the site may have sent, in seconds; longer ones in the history count too.
    """
    sent = [each.header.max_age or 0 for each in history.events if isinstance(each, Published) and each.header]
    # A client notes no header without a pin in the chain (RFC 7469 §2.5): so every noted header had this key.
    key = next((pin for pin in chain if header is not None and pin in header.pins), chain[0])
    unknown = Published(now, PublicKeyPins((key,), max([longest, *sent])), is_assumed=True)
    return history.with_event(unknown).with_event(Published(now, header)).with_event(Deployed(now, tuple(chain)))
