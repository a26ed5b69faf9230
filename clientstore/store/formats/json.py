"""JSON, for programs: a list of entries, or JSON lines with one entry each. All fields are included."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import NoReturn, cast

from dynpin.errors import InvalidPinFile
from dynpin.hosts import KnownPinnedHost
from dynpin.recovery import NotedRecovery
from dynpin.report import rfc3339

from .fields import Fields, printable
from .limits import MOST_ENTRIES, bounded, too_many, whole_text

__all__ = ["decode", "describe", "read_json", "read_jsonl", "write_json", "write_jsonl"]

_FORM = "a JSON list"


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number of JSON")


# Made once: json.loads makes a decoder for each text. Python's default accepts NaN and Infinity (not RFC 8259 §6).
_DECODER = json.JSONDecoder(parse_constant=_no_number)
_ENCODER = json.JSONEncoder()


def describe(known: KnownPinnedHost) -> dict[str, object]:
    """A Known Pinned Host as JSON; times are RFC 3339 in UTC."""
    return {
        "host": known.host,
        "pins": [str(pin) for pin in known.pins],
        "include_subdomains": known.include_subdomains,
        "report_uri": None if known.report_uri is None else printable(known.report_uri),
        "noted_at": rfc3339(known.noted_at),
        "expires_at": None if known.expires_at is None else rfc3339(known.expires_at),
        "source": known.source,
        "certificates": [digest.hex() for digest in known.certificates],
        "on_expiry": known.on_expiry,
        "origin": None if known.origin is None else printable(known.origin),
        **_recovery(known.recovery),
    }


def _recovery(noted: NotedRecovery | None) -> dict[str, object]:
    standing = None if noted is None else noted.standing
    if noted is None or standing is None:
        return {"recovery_root": None, "recovery_uri": None, "list_version": 0}
    return {"recovery_root": standing.root_text, "recovery_uri": standing.uri, "list_version": noted.list_version}


def decode(text: str) -> object:
    """The value of a JSON text.

    Raises:
        ValueError: if the text is not JSON (JSONDecodeError), or contains NaN or Infinity.
        RecursionError: if it is nested too deeply.
    """
    bare = text.strip(" \t\n\r")
    loaded, end = _DECODER.raw_decode(bare)
    if end < len(bare):
        raise json.JSONDecodeError("Extra data", bare, end)
    return cast("object", loaded)


def write_json(entries: Iterable[KnownPinnedHost]) -> Iterator[str]:
    """A JSON list with one object for each entry, as ``dynpin hosts list --json`` prints it.

    Raises:
        InvalidPinFile: for more than 10,000 entries, before anything is written.
    """
    yield json.dumps([describe(entry) for entry in bounded(entries, _FORM)], indent=2) + "\n"


def write_jsonl(entries: Iterable[KnownPinnedHost]) -> Iterator[str]:
    """JSON lines: one object on each line, with the same members as in the JSON list."""
    for entry in entries:
        yield _ENCODER.encode(describe(entry)) + "\n"


def read_json(lines: Iterable[str], *, now: float, origin: str | None = None) -> Iterator[KnownPinnedHost]:
    """The entries of a JSON list. Members with unknown names are ignored.

    Args:
        lines: an open text file, or lines of text. It is read as a whole.
        now: seconds since the epoch, UTC: the time of noting for entries without one.
        origin: the name of the file, for messages.

    Raises:
        InvalidPinFile: if the text is not such a list, or has more than 10,000 entries.
    """
    text = whole_text(lines, _FORM)
    try:
        loaded = decode(text)
    except (ValueError, RecursionError) as error:
        raise InvalidPinFile(f"the file is not JSON: {error}") from None
    if not isinstance(loaded, list):
        raise InvalidPinFile(
            "the JSON is not a list of pinned hosts, such as `dynpin hosts list --json` prints; "
            "one object a line is the format jsonl"
        )
    members = cast("list[object]", loaded)
    if len(members) > MOST_ENTRIES:
        raise too_many(_FORM)
    for number, member in enumerate(members, start=1):
        try:
            entry = _entry(member, now, origin)
        except ValueError as error:
            raise InvalidPinFile(f"entry {number}: {error}") from None
        yield entry


def read_jsonl(lines: Iterable[str], *, now: float, origin: str | None = None) -> Iterator[KnownPinnedHost]:
    """The entries of JSON lines: one object on each line, with the same members as in the JSON list.

    Args:
        lines: an open text file, or lines of text. Only one line is held at a time.
        now: seconds since the epoch, UTC: the time of noting for entries without one.
        origin: the name of the file, for messages.

    Raises:
        InvalidPinFile: at the first line that is not such an object. Empty lines are skipped.
    """
    for number, line in enumerate(lines, start=1):
        if not line or line.isspace():
            continue
        try:
            entry = _entry(decode(line), now, origin)
        except json.JSONDecodeError as error:
            raise InvalidPinFile(f"line {number}: it is not JSON: {error.msg}, at column {error.colno}") from None
        except (ValueError, RecursionError) as error:
            raise InvalidPinFile(f"line {number}: {error}") from None
        yield entry


def _entry(member: object, now: float, origin: str | None) -> KnownPinnedHost:
    if not isinstance(member, dict):
        raise ValueError("it is not an object")  # noqa: TRY004 - as every fault of a file
    return Fields(cast("dict[str, object]", member)).entry(now, origin)
