"""Reads what was sent. Reports of one cause differ in their dates alone, so that a burst of them is read once."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import cast

from dynpin.errors import InvalidReport
from dynpin.middleware.collector.storage import Mode
from dynpin.report import Report, certificate_pin, grouping_key, load_json, read_report, read_time, unwrap

__all__ = ["Understood", "decoded", "kept", "storable", "understood", "understood_alone"]

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_MAX_NAME = 300
# Longer bodies are read one by one: what is remembered has a bound.
_REMEMBERED, _MAX_REMEMBERED = 128, 32_768
# A date as the text has it: member, what leads to the value, and the value, which has nothing to unescape.
_DATES = re.compile(r'("date-time|"effective-expiration-date)("\s*:\s*")([0-9TZ:.+-]{1,40})(?=")')
_ANY_DATE = "1970-01-01T00:00:00Z"
# A member as the text begins it: its name, and what its flags are called.
_MEMBERS = {
    '"date-time': ("date-time", "date-time"),
    '"effective-expiration-date': ("effective-expiration-date", "expiration"),
}


@dataclass(frozen=True, slots=True)
class Understood:
    """A report, the key of its group, and the pins of its validated chain, ``""`` where there is none."""

    report: Report
    key: str
    validated_pins: tuple[str, ...]


def understood(entry: object, mode: Mode) -> Understood:
    """One report of what the JSON of a body held.

    Raises:
        InvalidReport: where it is none.
    """
    report = read_report(entry)
    if report.flags:
        # Only a name that is flagged can hold what is too long to show or cannot be stored.
        noted = report.noted_hostname
        report = replace(
            report,
            hostname=storable(report.hostname)[:_MAX_NAME],
            noted_hostname=None if noted is None else storable(noted)[:_MAX_NAME],
        )
    pins = (certificate_pin(pem) for pem in report.validated_chain)
    return Understood(report, grouping_key(report, mode=mode), tuple("" if pin is None else str(pin) for pin in pins))


def understood_alone(text: str, mode: Mode) -> Understood | None:
    """The report of a body that was read before but for its dates; None where it must be read by itself."""
    if len(text) > _MAX_REMEMBERED:
        return None
    rest = _DATES.split(text)
    dates = rest[3::4]
    del rest[3::4]
    common = _common(tuple(rest), mode)
    if common is None:
        return None
    report = common.report
    moments = {"date-time": report.date_time, "expiration": report.effective_expiration_date}
    for member, date in zip(rest[1::3], dates, strict=True):
        name = _MEMBERS[member][1]
        moments[name], flag = read_time(date, name)
        if flag:
            return None
    dated = replace(report, date_time=moments["date-time"], effective_expiration_date=moments["expiration"])
    return Understood(dated, common.key, common.validated_pins)


@lru_cache(maxsize=_REMEMBERED)
def _common(rest: tuple[str, ...], mode: Mode) -> Understood | None:
    """What all bodies say that are this text with some date in each gap; None where a gap is no date of the report."""
    text = "".join(piece + _ANY_DATE if number % 3 == 2 else piece for number, piece in enumerate(rest))
    try:
        loaded = load_json(text)
        if not isinstance(loaded, dict) or unwrap(cast("object", loaded))[0] is not loaded:
            return None
        sent = cast("dict[str, object]", loaded)
        # A gap in a nested object or in a key of another name leaves the member without the date; two gaps of one name
        # would hide each other.
        members = [_MEMBERS[member][0] for member in rest[1::3]]
        if len(set(members)) < len(members) or any(sent.get(member) != _ANY_DATE for member in members):
            return None
        return understood(sent, mode)
    except InvalidReport:
        return None


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


def kept(body: str) -> object:
    """The JSON of a body that was stored; null for a number that JSON cannot write again, as older versions let in."""
    return cast("object", json.loads(body, parse_constant=lambda _: None, parse_float=_finite))


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def storable(text: str) -> str:
    """The text without what SQLite cannot store: lone surrogates and NUL."""
    return _UNSTORABLE.sub("\ufffd", text)
