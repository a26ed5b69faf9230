"""JSON from the storage. A stranger or another version wrote it, or it is damaged; reading it never raises."""

from __future__ import annotations

import json
import math
from typing import cast

from dynpin.errors import InvalidReport
from dynpin.report import Report, load_json, read_report

__all__ = ["ascii_json", "kept", "kept_report"]


def kept(text: str | None) -> object:
    """The value of stored JSON; None if it is damaged, or has a number that JSON cannot write (infinity)."""
    try:
        return cast("object", json.loads(text or "null", parse_constant=lambda _: None, parse_float=_finite))
    except (ValueError, RecursionError):
        return None


def kept_report(body: str | None) -> Report | None:
    """The report of a stored body; None if it cannot be read."""
    try:
        return read_report(kept(body))
    except InvalidReport:
        return None


def ascii_json(body: str) -> str:
    """A stored body as it was sent. It is written again in ASCII if it is not valid, or has control sequences."""
    try:
        load_json(body)
    except InvalidReport:
        return json.dumps(kept(body))
    return body if body.isascii() and "\x7f" not in body else json.dumps(kept(body))


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None
