"""Reads what was sent. Reports of one cause differ in their dates alone, so that a burst of them is read once."""

from __future__ import annotations

import hashlib
import json
import re
from functools import cached_property, lru_cache
from typing import NamedTuple, cast

from dynpin.errors import InvalidReport
from dynpin.report import certificate_pin, grouping_key, load_json, read_report, read_time, unwrap

from ..storage import Cause, Mode, Shared

__all__ = ["Understood", "decoded", "storable", "understood", "understood_alone"]

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_MAX_NAME = 300
# Longer bodies are read one by one: what is remembered has a bound, of 32 million characters here.
_REMEMBERED, _MAX_REMEMBERED = 2048, 16_384
# The members that hold a date, as the text has their names, and what follows: a date has nothing to unescape.
_OBSERVED, _EXPIRES = '"date-time"', '"effective-expiration-date"'
_DATE = re.compile(r'\s*:\s*"([0-9TZ:.+-]{1,40})"')
# Two dates to read a text with whose own dates were taken out.
_STAND_INS = ("1970-01-01T00:00:01Z", "1970-01-01T00:00:02Z")
# A burst has the same seconds over and over.
_read_time = lru_cache(maxsize=1024)(read_time)


class Understood(NamedTuple):
    """What a report says: its cause, what is odd about it, and its dates.

    `shared` and `dates` are as in :class:`~dynpin.middleware.collector.storage.Arrival`.
    """

    cause: Cause
    flags: tuple[str, ...]
    observed_at: float | None
    expires_at: float | None
    shared: Shared | None = None
    dates: tuple[str, str] = ("", "")


def understood(entry: object, mode: Mode) -> Understood:
    """One report of what the JSON of a body held.

    Raises:
        InvalidReport: where it is none.
    """
    report = read_report(entry)
    host, noted = report.hostname, report.noted_hostname or ""
    if report.flags:
        # Only a name that is flagged can hold what is too long to show or cannot be stored.
        host, noted = storable(host)[:_MAX_NAME], storable(noted)[:_MAX_NAME]
    pins = map(certificate_pin, report.validated_chain)
    cause = Cause(
        key=grouping_key(report, mode=mode),
        mode=mode,
        host=host,
        noted_host=noted,
        port=report.port,
        known_pins=tuple(map(str, report.known_pins)),
        validated_pins=tuple("" if pin is None else str(pin) for pin in pins),
    )
    return Understood(cause, report.flags, report.date_time, report.effective_expiration_date)


def understood_alone(text: str, mode: Mode) -> Understood | None:
    """The report of a body that was read before but for its dates; None where it must be read by itself."""
    if len(text) > _MAX_REMEMBERED:
        return None
    (start, end), (later, last) = sorted((_date(text, _OBSERVED), _date(text, _EXPIRES)))
    common = _common((text[:start], text[end:later], text[last:]), mode)
    if common is None:
        return None
    dates = (text[start:end], text[later:last])
    cause, flags, observed_at, expires_at, _, _ = common.said
    flag = ""
    if common.observed is not None:
        observed_at, flag = _read_time(dates[common.observed], "date-time")
    if common.expires is not None and not flag:
        expires_at, flag = _read_time(dates[common.expires], "expiration")
    if flag:
        return None
    if not common.was_met:
        # Most texts are met once. What comes again is worth a hash, and a place of its own in the storage.
        common.was_met = True
        return Understood(cause, flags, observed_at, expires_at)
    return Understood(cause, flags, observed_at, expires_at, common.shared, dates)


def _date(text: str, member: str) -> tuple[int, int]:
    """Where the date of a member stands; the end of the text where there is none."""
    at = text.find(member)
    found = None if at < 0 else _DATE.match(text, at + len(member))
    return (len(text), len(text)) if found is None else found.span(1)


class _Common:
    """What all bodies say that have these pieces, and which of the two dates between them is which member's."""

    def __init__(
        self, pieces: tuple[str, str, str], said: Understood, observed: int | None, expires: int | None
    ) -> None:
        self.pieces = pieces
        self.said = said
        self.observed = observed
        self.expires = expires
        self.was_met = False

    @cached_property
    def shared(self) -> Shared:
        # JSON has no NUL, so that no two texts have one hash for being cut at different places.
        return Shared(hashlib.sha256("\0".join(self.pieces).encode()).digest(), self.pieces)


@lru_cache(maxsize=_REMEMBERED)
def _common(pieces: tuple[str, str, str], mode: Mode) -> _Common | None:
    """What the pieces say with whatever dates between them; None where a gap is no date of the report."""
    # Where there is a date, a quotation mark follows: a piece that is empty follows none.
    gaps = _STAND_INS[: bool(pieces[1]) + bool(pieces[2])]
    text = "".join((pieces[0], *gaps[:1], pieces[1], *gaps[1:], pieces[2]))
    # A name twice, or spelt with escapes, and the gap may be another one's than the member that is read.
    if "\\u" in text or text.count(_OBSERVED) > 1 or text.count(_EXPIRES) > 1:
        return None
    try:
        loaded = load_json(text)
        if not isinstance(loaded, dict) or unwrap(cast("object", loaded))[0] is not loaded:
            return None
        sent = cast("dict[str, object]", loaded)
        observed, expires = (_place(sent.get(name.strip('"'))) for name in (_OBSERVED, _EXPIRES))
        if (observed is not None) + (expires is not None) < len(gaps):
            return None  # it stands in an object within
        return _Common(pieces, understood(sent, mode), observed, expires)
    except InvalidReport:
        return None


def _place(value: object) -> int | None:
    return _STAND_INS.index(value) if isinstance(value, str) and value in _STAND_INS else None


def decoded(body: bytes) -> str:
    """The text of a body.

    Raises:
        InvalidReport: ``empty`` or ``not-json``.
    """
    if not body:
        raise InvalidReport("empty", "the body is empty")
    try:
        # RFC 8259 §8.1: UTF-8; a byte order mark is ignored, and so are senders of UTF-16, from the time before it.
        return body.decode(json.detect_encoding(body))
    except UnicodeDecodeError as error:
        raise InvalidReport("not-json", f"the body is not text: {error}") from None


def storable(text: str) -> str:
    """The text without what SQLite cannot store: lone surrogates and NUL."""
    return _UNSTORABLE.sub("\ufffd", text)
