"""What a query string asks for: every name and every value is one that is known, or an error with the list."""

from __future__ import annotations

import re
from collections.abc import Iterable

from dynpin.pins import Pin

from ..storage import FIELDS, MODES, STATES, BadFilter, Filter
from ..triage import VERDICTS

__all__ = ["CHOICES", "wanted_of"]

# The fields that have few values. A group that no worker has looked at has the verdict none.
CHOICES: dict[str, tuple[str, ...]] = {
    "mode": MODES,
    "verdict": (*VERDICTS, "none"),
    "state": STATES,
}
_TIMES = ("since", "until")
_GROUP = re.compile("[0-9a-f]{32}")


def wanted_of(pairs: Iterable[tuple[str, str]], now: float, *others: str, may_be_empty: bool = False) -> Filter:
    """The filter of a query string.

    Args:
        pairs: its names and values.
        now: seconds since the epoch, UTC.
        others: names beside the filters.
        may_be_empty: whether an empty value is none, as forms send it.

    Raises:
        BadFilter: for a name or a value that is not known; the message has the list.
    """
    told = list(pairs)
    for name, value in told:
        field = name.removesuffix("!")
        if name in _TIMES or name in others:
            continue
        if field not in FIELDS:
            known = ", ".join((*FIELDS, *_TIMES, *others))
            raise BadFilter(f"{name[:40]!r} is no filter; there are {known}, and host! and the like exclude")
        if value or not may_be_empty:
            _check(field, value)
    return Filter.parse(told, now)


def _check(field: str, value: str) -> None:
    choices = CHOICES.get(field)
    if choices is not None and value not in choices:
        raise BadFilter(f"{field} is one of {', '.join(choices)}, not {value[:40]!r}")
    if not value:
        raise BadFilter(f"{field} has no value; leave it out to see everything")
    if field == "group" and not _GROUP.fullmatch(value):
        raise BadFilter(f"group is the name of a group, 32 hexadecimal digits, not {value[:40]!r}")
    if field == "pin":
        try:
            Pin.from_base64(value.replace(" ", "+"))
        except ValueError as error:
            raise BadFilter(f"pin is a pin in base64: {error}") from None
