"""Reads the bodies of reports."""

from __future__ import annotations

import json
from typing import NamedTuple

from dynpin.errors import InvalidReport
from dynpin.report import certificate_pin, grouping_key, read_report

from ..storage import Cause, Mode

__all__ = ["Understood", "decoded", "understood"]

_MAX_NAME = 300


class Understood(NamedTuple):
    """The content of a report: its cause, flags for what is strange, and its dates."""

    cause: Cause
    flags: tuple[str, ...]
    observed_at: float | None
    expires_at: float | None


def understood(entry: object, mode: Mode) -> Understood:
    """Read one report from the JSON value of a body.

    Raises:
        InvalidReport: if it is not a report.
    """
    report = read_report(entry)
    # Cut texts that are too long to show. The storage replaces characters that a database cannot store. In lower case,
    # also what is no host name: filters by host ignore the case.
    host, noted = report.hostname.lower()[:_MAX_NAME], (report.noted_hostname or "").lower()[:_MAX_NAME]
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


def decoded(body: bytes) -> str:
    """The text of a body.

    Raises:
        InvalidReport: ``empty`` or ``not-json``.
    """
    if not body:
        raise InvalidReport("empty", "the body is empty")
    try:
        # RFC 8259 §8.1: UTF-8. A byte order mark is ignored. UTF-16 and UTF-32, which older JSON allowed, are read too.
        return body.decode(json.detect_encoding(body))
    except UnicodeDecodeError as error:
        message = f"the body is not text: byte {error.start + 1} is not {error.encoding.upper()}; is it compressed?"
        raise InvalidReport("not-json", message) from None
