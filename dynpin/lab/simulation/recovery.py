"""Signed lists in a study: which sites have one, how soon it is signed, and when clients look at it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from .study_table import DAY, Table

__all__ = ["Recovery", "Watch", "read_recovery"]

Watch = Literal["refused", "followed"]


@dataclass(frozen=True)
class Recovery:
    """The signed lists of the sites that a population visits (docs/how-to/recovery.md).

    Attributes:
        share: the share of the clients whose site has had a signed list, and named its root, from day 0 on.
        signed_after: seconds from each change of the site's pins until its list has the same pins.
        watch: when a client looks: ``"refused"``, only after a refusal, for a client that noted the root from a header;
            or ``"followed"``, also daily, for a program that has followed the list from day 0 on.
    """

    share: float = 1.0
    signed_after: int = DAY
    watch: Watch = "refused"


def read_recovery(values: object) -> Recovery:
    """The ``[recovery]`` of a study, with defaults for missing values.

    Raises:
        InvalidStudy: for invalid values.
    """
    table = Table("recovery", values, ("share", "signed_after", "watch"))
    watch = next(each for each in get_args(Watch) if each == table.choice("watch", get_args(Watch), "refused"))
    return Recovery(table.number("share", 1.0, most=1), table.span("signed_after", "1 day"), watch)
