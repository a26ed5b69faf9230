"""Read the tables of a study file: values by name. An error names the table, the value and the fix."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from typing import cast

from dynpin.errors import InvalidStudy

__all__ = ["DAY", "Table", "seconds"]

DAY = 86_400
_SPAN = re.compile(r"(?P<count>[0-9]+(?:\.[0-9]+)?)\s*(?P<unit>second|minute|hour|day|week|year)s?")
_UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": DAY, "week": 7 * DAY, "year": 365 * DAY}
# A hundred years. A longer time is a typing error; below it arithmetic in seconds is exact.
_LONGEST = 36_500 * DAY
# A larger number is a typing error, or infinity.
_MOST = 1e9


def seconds(text: str) -> int:
    """A length of time such as ``"30 days"``, ``"1.5 hours"`` or ``"90 minutes"``, in whole seconds.

    Raises:
        ValueError: for any other text.
    """
    match = _SPAN.fullmatch(text.strip().lower())
    if match is None:
        raise ValueError(f'{text!r} is not a length of time: give one such as "30 days", "12 hours" or "90 minutes"')
    found = float(match["count"]) * _UNITS[match["unit"]]
    if not found <= _LONGEST:
        raise ValueError(f"{text!r} is longer than a hundred years")
    return round(found)


class Table:
    """One table of a study. Unknown names are refused at once."""

    def __init__(self, name: str, values: object, known: Sequence[str]) -> None:
        if not isinstance(values, Mapping):
            raise InvalidStudy(f"{name} is {_shown(values)}: give a table, as dynpin simulate --example has them")
        self.name = name
        self.values = cast("Mapping[str, object]", values)
        for key in self.values:
            if key not in known:
                close = difflib.get_close_matches(key.replace("-", "_").lower(), known, n=1)
                meant = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
                raise InvalidStudy(f"{name}: {key} is not known here; {meant}")

    def wrong(self, key: str, wanted: str) -> InvalidStudy:
        """The error for an invalid or missing value."""
        if key not in self.values:
            return InvalidStudy(f"{self.name}: {key} is missing: give {wanted}")
        return InvalidStudy(f"{self.name}: {key} = {_shown(self.values[key])} is not understood: give {wanted}")

    def number(self, key: str, default: float | None = None, *, least: float = 0.0, most: float = _MOST) -> float:
        """A number between two bounds."""
        found = self.values.get(key, default)
        if not isinstance(found, int | float) or isinstance(found, bool) or not least <= found <= most:
            raise self.wrong(key, f"a number from {least:g}" + (f" to {most:g}" if most < _MOST else ""))
        return found

    def integer(self, key: str, default: int | None = None, *, least: int = 0, most: int = 2**53) -> int:
        """A whole number between two bounds."""
        found = self.values.get(key, default)
        if not isinstance(found, int) or isinstance(found, bool) or not least <= found <= most:
            raise self.wrong(key, f"a whole number from {least} to {most}")
        return found

    def day(self, key: str, default: float | None = None) -> int:
        """A day of the calendar, counted from 0, fractions allowed, in whole seconds."""
        return round(self.number(key, default, most=_LONGEST / DAY) * DAY)

    def span(self, key: str, default: str | None = None) -> int:
        """A length of time, in whole seconds."""
        found = self.values.get(key, default)
        wanted = 'a length of time such as "30 days", "12 hours" or "90 minutes"'
        if not isinstance(found, str):
            raise self.wrong(key, wanted)
        try:
            return seconds(found)
        except ValueError:
            raise self.wrong(key, wanted) from None

    def text(self, key: str, default: str | None = None) -> str:
        """A text that is not empty and has only characters that a terminal and a picture can show."""
        found = self.values.get(key, default)
        if not isinstance(found, str) or not found or not found.isprintable():
            raise self.wrong(key, 'a text in "quotes", without control characters')
        return found

    def choice(self, key: str, options: Sequence[str], default: str | None = None) -> str:
        """One of the texts of `options`."""
        found = self.values.get(key, default)
        if not isinstance(found, str) or found not in options:
            raise self.wrong(key, " or ".join(f'"{option}"' for option in options))
        return found

    def tables(self, key: str, wanted: str | None = None) -> list[object]:
        """A list of tables, ``[[key]]``; empty if it is missing."""
        found = self.values.get(key, [])
        if not isinstance(found, list):
            raise self.wrong(key, wanted or f"tables, each headed [[{key}]]")
        return cast("list[object]", found)


def _shown(value: object) -> str:
    """A value about as it is written in the file; a long one is cut."""
    # TOML writes inf and nan as Python does. A whole number can be shown without its .0.
    text = f"{value:.15g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
