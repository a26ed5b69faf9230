"""Make texts of strangers storable in every database."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, cast

from sqlalchemy import Dialect, Text, TypeDecorator
from sqlalchemy.types import TypeEngine

from ..values import Arrival, Cause

__all__ = ["StorableText", "storable", "storable_arrivals"]

# PostgreSQL refuses a NUL, and SQLite a lone surrogate. The whole statement fails then.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def storable(text: str) -> str:
    """The text, with U+FFFD instead of each character that a database cannot store."""
    return _UNSTORABLE.sub("\ufffd", text)


class StorableText(TypeDecorator[str]):
    """A text that is made storable when it is written, and that is ordered by its bytes on every database."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Order by bytes on PostgreSQL too; SQLite always does."""
        return Text(collation="C") if dialect.name == "postgresql" else Text()

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Make a parameter storable."""
        return None if value is None else storable(value)


def storable_arrivals(arrivals: Sequence[Arrival]) -> list[Arrival]:
    """The reports, with texts that every database can store."""
    return [one if _is_storable(one) else _cleaned(one) for one in arrivals]


def _is_storable(one: Arrival) -> bool:
    cause = one.cause
    texts = (one.body, one.user_agent, one.token, one.source, *one.flags)
    of_cause = (cause.key, cause.host, cause.noted_host, *cause.known_pins, *cause.validated_pins)
    text = "".join((*texts, *of_cause))
    # Nearly every report is ASCII, and Python knows that of a text. The expression would look at each character.
    return "\0" not in text if text.isascii() else _UNSTORABLE.search(text) is None


def _cleaned(one: Arrival) -> Arrival:
    return Arrival._make(
        Cause._make(map(_clean, field)) if isinstance(field, Cause) else _clean(field) for field in one
    )


def _clean(value: Any) -> Any:  # noqa: ANN401 - of any field
    if isinstance(value, tuple):
        return tuple(map(_clean, cast("tuple[object, ...]", value)))
    return storable(value) if isinstance(value, str) else value
