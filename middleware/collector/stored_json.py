"""JSON as the storage has it: of a stranger, perhaps of another version, perhaps damaged. Reading it never fails."""

from __future__ import annotations

import json
import math
from typing import cast

from dynpin.errors import InvalidReport
from dynpin.report import Report, load_json, read_report

__all__ = ["ascii_json", "kept", "kept_report"]


def kept(text: str | None) -> object:
    """JSON that was stored; null for a number that JSON cannot write again, as older versions let in, or for a ruin."""
    try:
        return cast("object", json.loads(text or "null", parse_constant=lambda _: None, parse_float=_finite))
    except (ValueError, RecursionError):
        return None


def kept_report(body: str | None) -> Report | None:
    """The report of a body that was stored; None where it cannot be read any more."""
    try:
        return read_report(kept(body))
    except InvalidReport:
        return None


def ascii_json(body: str) -> str:
    """A body that was stored, as it came; written anew where that is not taken today, or a terminal would obey it."""
    try:
        load_json(body)
    except InvalidReport:
        return json.dumps(kept(body))
    return body if body.isascii() and "\x7f" not in body else json.dumps(kept(body))


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None
