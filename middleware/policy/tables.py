"""Read the tables of a TOML file into a model. Errors name the file, the table and the key, as TOML has them."""

from __future__ import annotations

import datetime
import difflib
import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, TypeVar, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from dynpin.durations import parse_duration
from dynpin.errors import PolicyError
from dynpin.files import read_file

__all__ = ["Seconds", "Table", "read_tables", "seconds_of"]


class Table(BaseModel):
    """One table of a file. Unknown keys are refused. The description of a key says which values it takes."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, arbitrary_types_allowed=True)


def seconds_of(value: object) -> object:
    """The seconds of a text such as ``"30 days"``; other values unchanged.

    Raises:
        ValueError: if a text is not a length of time.
    """
    try:
        return parse_duration(value) if isinstance(value, str) else value
    except ValueError:
        raise ValueError from None  # the message comes from the key's description


# Seconds, or a text such as "30 days".
Seconds = Annotated[int, BeforeValidator(seconds_of)]

_Model = TypeVar("_Model", bound=Table)


def read_tables(path: Path, model: type[_Model]) -> _Model:
    """Read a TOML file.

    Raises:
        PolicyError: if it cannot be read, is not TOML, or a key or value is not valid: one line for each key.
    """
    try:
        top = tomllib.loads(read_file(path).decode("utf-8-sig"))
    except OSError as error:
        raise PolicyError(
            f"{path} cannot be read ({error.strerror or error}): check its path and permissions"
        ) from None
    except (ValueError, RecursionError) as error:  # invalid TOML, UTF-8 or file name
        raise PolicyError(f"{path} is not a TOML file: {_fault(error)}") from None
    try:
        return model.model_validate(top)
    except ValidationError as error:
        # One line for each key, since a union gives one error for each of its types.
        lines = dict.fromkeys(_line(model, top, each) for each in error.errors(include_url=False))
        raise PolicyError("\n".join(f"{path}: {line}" for line in lines)) from None


def _fault(error: Exception) -> str:
    """Why a text is not TOML, without words of Python."""
    match error:
        case UnicodeDecodeError():
            return f"it is not UTF-8 text (byte {error.start + 1})"
        case RecursionError():
            return "it is nested too deeply"
        case _:
            # tomllib shows the name of a table, such as [site.nodes], as a tuple: ('site', 'nodes').
            return re.sub(r"\('(.*?)',?\)", lambda name: "[" + name[1].replace("', '", ".") + "]", str(error))


def _line(model: type[Table], top: Mapping[str, object], error: ErrorDetails) -> str:
    """The line for one key."""
    tables: list[str] = []
    known: type[BaseModel] = model
    inside: object = top
    key = ""
    for part in error["loc"]:
        if key:
            table, value = _table_of(known, key), _member(inside, key, None)
            if isinstance(part, int) and isinstance(value, list):  # the index of an entry
                value = cast("list[object]", value)[part]
            if table is None or not isinstance(value, dict):
                break  # the rest is inside a value
            tables.append(key)
            known, inside = table, cast("object", value)
        key = "" if isinstance(part, int) else part
    name = f"[{'.'.join(tables)}] {key}" if tables else key
    fields = {field.alias or name: field for name, field in known.model_fields.items()}
    if error["type"] == "extra_forbidden" and key not in fields:
        close = difflib.get_close_matches(key.replace("-", "_").lower(), fields, n=1)
        meant = f"did you mean {close[0]}?" if close else f"the known keys are {', '.join(fields)}"
        return f"{name} is not known here; {meant}"
    field = fields.get(key)
    wanted = field.description if field else None
    if error["type"] == "missing":
        return f"{name} is missing{f': give {wanted}' if wanted else ''}"
    said = str(error["ctx"]["error"]) if error["type"] == "value_error" and "ctx" in error else ""
    if said:
        return f"{name} {said}"
    # A field with repr=False is a secret.
    equals = f" = {_toml(_member(inside, key, error['input']))}" if field is None or field.repr else ""
    return f"{name}{equals} is not understood{f': give {wanted}' if wanted else ''}"


def _member(inside: object, key: str, default: object) -> object:
    return cast("dict[str, object]", inside).get(key) if isinstance(inside, dict) else default


def _table_of(model: type[BaseModel], key: str) -> type[BaseModel] | None:
    """The model of the table under a key, or None if there is none."""
    for name, field in model.model_fields.items():
        if key == (field.alias or name):
            return next((each for each in _types(field.annotation) if issubclass(each, BaseModel)), None)
    return None


def _types(annotation: object) -> list[type]:
    """The types in an annotation."""
    arguments = cast("tuple[object, ...]", getattr(annotation, "__args__", ()))
    found = [each for argument in arguments for each in _types(argument)]
    return [annotation, *found] if isinstance(annotation, type) else found


def _toml(value: object) -> str:
    """A value as TOML text, about as it is in the file."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return json.dumps(value, ensure_ascii=False)
        case list():
            return f"[{', '.join(map(_toml, cast('list[object]', value)))}]"
        case dict():
            members = cast("dict[str, object]", value)
            return f"{{ {', '.join(f'{name} = {_toml(each)}' for name, each in members.items())} }}"
        case datetime.date() | datetime.time():
            return value.isoformat()
        case _:
            return str(value)
