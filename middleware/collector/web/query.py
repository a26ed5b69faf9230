"""The names and values of query strings, declared once for the pages, the API and OpenAPI."""

from __future__ import annotations

from collections.abc import Iterable
from types import GenericAlias
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema, create_model

from dynpin.pins import Pin

from ..storage import FIELDS, MAX_VALUES, BadFilter, Mode, State, seconds
from ..triage import VerdictName

__all__ = [
    "CHOICES",
    "AnyQuery",
    "Filters",
    "GroupKey",
    "Limited",
    "Listing",
    "NarrowedFilters",
    "Narrowing",
    "PagedFilters",
    "Query",
    "read_query",
]

GroupKey = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
Pairs = Iterable[tuple[str, str]]
MAX_LIMIT = 500


def _time(text: str) -> str:
    if text:
        seconds(text, 0.0)
    return text


def _pin(text: str) -> str:
    Pin.from_base64(text.replace(" ", "+"))  # an unquoted + becomes a space
    return text


_Text = Annotated[str, Field(min_length=1)]
_Pin = Annotated[str, AfterValidator(_pin), WithJsonSchema({"type": "string", "pattern": "^[A-Za-z0-9+/]{43}=$"})]
_Time = Annotated[
    str,
    AfterValidator(_time),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": "^([0-9]{1,5}[mhdw])?$"},
                {"type": "string", "format": "date"},
                {"type": "string", "format": "date-time"},
            ]
        }
    ),
]
_Cursor = Annotated[str, Field(pattern=r"^([0-9]{1,12}\.[0-9]{1,12}_[0-9]{1,18})?$")]

# The fields with few values. A group without a verdict has the value none.
_FEW: dict[str, Any] = {"mode": Mode, "verdict": Literal[VerdictName, "none"], "state": State}
CHOICES: dict[str, tuple[str, ...]] = {name: get_args(few) for name, few in _FEW.items()}
_VALUES: dict[str, Any] = dict.fromkeys(FIELDS, _Text) | _FEW | {"pin": _Pin, "group": GroupKey}
_MEANT = {
    **dict.fromkeys(FIELDS, "a text; leave it out to see everything"),
    **{name: f"one of {', '.join(choices)}" for name, choices in CHOICES.items()},
    "pin": "a pin in base64",
    "group": "the name of a group, 32 hexadecimal digits",
    "since": "a time: 24h, 7d, 2026-05-01 or 2026-05-01T12:00Z",
    "until": "a time: 24h, 7d, 2026-05-01 or 2026-05-01T12:00Z",
    "limit": f"a number from 1 to {MAX_LIMIT}",
    "cursor": "the cursor of the page before",
    "page": "one of groups and reports, or empty",
    "field": f"one of {', '.join(FIELDS)}",
    "is": "one of is, not",
}


class Query(BaseModel):
    """A query string without any name. Subclasses add names."""

    model_config = ConfigDict(extra="forbid")


class AnyQuery(Query):
    """Any query string, since balancers add names of their own to a health check."""

    model_config = ConfigDict(extra="ignore")


class Limited(Query):
    """A query string with a limit."""

    limit: int = Field(default=50, ge=1, le=MAX_LIMIT, description="Entries at most.")


class Paged(Query):
    """A query string with a cursor."""

    cursor: _Cursor = Field(default="", description="The cursor of the page before.")


class _Times(Query):
    since: _Time = Field(default="", description="Not before this: 24h, 7d, a date, or a time of RFC 3339.")
    until: _Time = Field(default="", description="Before this, in the same forms.")


def _with_fields(name: str, *bases: type[Query]) -> type[Query]:
    """A model with the names of all filters, each with `=` and `!=`, and the names of its bases."""
    members: dict[str, Any] = {
        f"{field}{sign}": (
            GenericAlias(list, (_VALUES[field],)),
            Field(
                default=[],
                max_length=MAX_VALUES,
                description=f"{label} {'none' if sign else 'one'} of these.",
            ),
        )
        for field, label in FIELDS.items()
        for sign in ("", "!")
    }
    return create_model(name, __base__=(*bases, _Times), **members)


class Narrowing(Query):
    """The fields of the filter form, in addition to the current filters."""

    page: Literal["", "groups", "reports"] = ""
    field: str = ""
    is_: Literal["is", "not"] = Field(default="is", alias="is")
    value: str = ""


Filters = _with_fields("Filters")
PagedFilters = _with_fields("PagedFilters", Paged)
Listing = _with_fields("Listing", Paged, Limited)
NarrowedFilters = _with_fields("NarrowedFilters", Narrowing)


def read_query(model: type[Query], pairs: Pairs, *, may_be_empty: bool = False) -> Query:
    """Read a query string by its model.

    Args:
        model: the names that it may have.
        pairs: its names and values.
        may_be_empty: ignore an empty value, which forms send.

    Raises:
        BadFilter: for an unknown name or value; the message lists the known ones.
    """
    told: dict[str, list[str]] = {}
    for name, value in pairs:
        if value or not may_be_empty:
            told.setdefault(name, []).append(value)
    try:
        return model.model_validate({name: _one_or_all(model, name, values) for name, values in told.items()})
    except ValidationError as error:
        raise BadFilter(_message(model, error)) from None


def _one_or_all(model: type[Query], name: str, values: list[str]) -> str | list[str]:
    is_field = name.removesuffix("!") in FIELDS
    return values if is_field or len(values) > 1 or name not in _names(model) else values[0]


def _names(model: type[Query]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _message(model: type[Query], error: ValidationError) -> str:
    """The fault, and the known names or values."""
    first = error.errors(include_url=False)[0]
    name, value = str(first["loc"][0]), str(first["input"])[:40]
    if first["type"] == "extra_forbidden":
        known = _names(model)
        names = [
            *(name for name in FIELDS if name in known),
            *(name for name in known if name.rstrip("!") not in FIELDS),
        ]
        there_are = f"the names are {', '.join(names)}" if names else "there are none here"
        negated = "; a ! after a name excludes, such as host!=a.example" if "host!" in model.model_fields else ""
        return f"{name[:40]!r} is not a filter; {there_are}{negated}"
    if first["type"] == "too_long":
        return f"more than {MAX_VALUES} values of {name}"
    if first["type"] == "string_too_short":
        return f"{name} has no value; leave it out to see everything"
    field = name.removesuffix("!")
    return f"{field} is {_MEANT[field]}, not {value!r}"
