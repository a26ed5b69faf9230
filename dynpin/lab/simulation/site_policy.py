"""A site's policy: which keys it pins, for how long, and with how many in reserve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from dynpin.counts import counted
from dynpin.durations import duration
from dynpin.errors import InvalidStudy
from dynpin.lab.simulation.study_table import DAY, Table

__all__ = ["Pinned", "SitePolicy", "describe", "read_policy"]

Pinned = Literal["key", "ca", "both", "none"]
_MOST_BACKUPS = 16


@dataclass(frozen=True)
class SitePolicy:
    """A policy that a study plays.

    Attributes:
        name: its name in tables and pictures.
        max_age: seconds.
        backups: how many Backup Pins it names. With none the header is not a Valid Pinning Header (RFC 7469 §2.5), and
            no client notes it.
        pinned: the site's own ``"key"``, the ``"ca"`` that signs it, ``"both"``, or ``"none"`` for a site that sends
            no header, to compare with.
        ramp: the start of the policy: pairs ``(max_age, lasts)`` in seconds, one after the other, before `max_age`.
    """

    name: str
    max_age: int
    backups: int = 1
    pinned: Pinned = "key"
    ramp: tuple[tuple[int, int], ...] = ()

    def max_age_at(self, second: int) -> int:
        """The max-age in the header at a second of the study."""
        for max_age, lasts in self.ramp:
            if second < lasts:
                return max_age
            second -= lasts
        return self.max_age


_PINNED: Mapping[str, Pinned] = {each: each for each in get_args(Pinned)}


def read_policy(number: int, values: object) -> SitePolicy:
    """One ``[[policy]]`` of a study.

    Raises:
        InvalidStudy: for invalid values.
    """
    table = Table(f"policy {number}", values, ("name", "max_age", "backups", "pin", "ramp"))
    pinned = _PINNED[table.choice("pin", list(_PINNED), "key")]
    max_age = table.span("max_age") if pinned != "none" or "max_age" in table.values else DAY
    if max_age < 1:
        raise table.wrong("max_age", "a second or more; only an unpin event sends 0")
    backups = table.integer("backups", 1, most=_MOST_BACKUPS)
    ramp: list[tuple[int, int]] = []
    steps = table.tables("ramp", 'a list such as [{ max_age = "1 day", lasts = "7 days" }]')
    for step, each in enumerate(steps, start=1):
        part = Table(f"{table.name}, step {step} of the ramp", each, ("max_age", "lasts"))
        ramp.append((part.span("max_age"), part.span("lasts")))
        if not all(ramp[-1]):
            raise InvalidStudy(f"{part.name} has a length of 0: give both a second or more, or remove the step")
    name = table.text("name", describe(max_age, backups, pinned))
    return SitePolicy(name, max_age, backups, pinned, tuple(ramp))


def describe(max_age: int, backups: int, pinned: Pinned) -> str:
    """The name of a policy without a name of its own."""
    if pinned == "none":
        return "no pins"
    what = {"key": "", "ca": "CA, ", "both": "key and CA, "}[pinned]
    return f"{what}{duration(max_age)}, {counted(backups, 'backup')}"
