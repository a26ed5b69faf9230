"""JSON and CSV: every field of every entry, for programs and spreadsheets."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from typing import cast

from dynpin.clientstore.formats.fields import Fields
from dynpin.errors import InvalidPinFile
from dynpin.hosts import KnownPinnedHost
from dynpin.report import rfc3339

__all__ = ["describe", "read_csv", "read_json", "write_csv", "write_json"]

_COLUMNS = (
    *("host", "pins", "include_subdomains", "report_uri", "noted_at", "expires_at", "source"),
    *("certificates", "on_expiry", "origin"),
)
# What a spreadsheet would take for a formula is written with an apostrophe before it.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")


def describe(known: KnownPinnedHost) -> dict[str, object]:
    """A Known Pinned Host as JSON; times are RFC 3339 in UTC."""
    return {
        "host": known.host,
        "pins": [str(pin) for pin in known.pins],
        "include_subdomains": known.include_subdomains,
        "report_uri": known.report_uri,
        "noted_at": rfc3339(known.noted_at),
        "expires_at": None if known.expires_at is None else rfc3339(known.expires_at),
        "source": known.source,
        "certificates": [digest.hex() for digest in known.certificates],
        "on_expiry": known.on_expiry,
        "origin": known.origin,
    }


def write_json(entries: Iterable[KnownPinnedHost]) -> str:
    """A JSON list with one object for each entry, as ``dynpin hosts list --json`` prints it."""
    return json.dumps([describe(entry) for entry in entries], indent=2) + "\n"


def read_json(text: str, *, now: float, origin: str | None = None) -> list[KnownPinnedHost]:
    """The entries of such a list; members of other names are ignored.

    Raises:
        InvalidPinFile: where it is no such list.
    """
    try:
        loaded: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidPinFile(f"the file is not JSON: {error}") from None
    if not isinstance(loaded, list):
        raise InvalidPinFile("the JSON is no list of pinned hosts, such as `dynpin hosts list --json` prints")
    entries: list[KnownPinnedHost] = []
    for number, member in enumerate(cast("list[object]", loaded), start=1):
        if not isinstance(member, dict):
            raise InvalidPinFile(f"entry {number}: it is no object")
        entries.append(_entry(Fields(cast("dict[str, object]", member), f"entry {number}"), now, origin))
    return entries


def write_csv(entries: Iterable[KnownPinnedHost]) -> str:
    """A CSV table with a heading; pins and certificates stand in one cell each, white space between them."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for entry in entries:
        members = describe(entry) | {"pins": " ".join(f"sha256/{pin}" for pin in entry.pins)}
        members["certificates"] = " ".join(digest.hex() for digest in entry.certificates)
        writer.writerow([_cell(members[column]) for column in _COLUMNS])
    return table.getvalue()


def read_csv(text: str, *, now: float, origin: str | None = None) -> list[KnownPinnedHost]:
    """The entries of such a table; its columns may stand in any order, and ``host`` and ``pins`` suffice.

    Raises:
        InvalidPinFile: where it is no such table.
    """
    try:
        rows = list(csv.reader(io.StringIO(text), strict=True))
    except csv.Error as error:
        raise InvalidPinFile(f"the file is not CSV: {error}") from None
    heading = rows[0] if rows else []
    if "host" not in heading or not {"pins", "certificates"} & set(heading):
        raise InvalidPinFile("the table has no heading with the columns host and pins")
    entries: list[KnownPinnedHost] = []
    for number, row in enumerate(rows[1:], start=2):
        if not row:
            continue
        if len(row) != len(heading):
            raise InvalidPinFile(f"row {number}: it has {len(row)} cells, and the heading {len(heading)}")
        cells = {name: _content(cell) for name, cell in zip(heading, row, strict=True)}
        entries.append(_entry(Fields(cells, f"row {number}"), now, origin))
    return entries


def _entry(fields: Fields, now: float, origin: str | None) -> KnownPinnedHost:
    pins, certificates = fields.pins("pins"), fields.certificates("certificates")
    source = fields.text("source") or "static"
    origin = origin or fields.text("origin")
    if source == "static":
        return fields.static(pins, certificates, now, origin)
    if source != "header":
        raise fields.wrong(f'source is {source!r}, not "header" or "static"')
    if certificates:
        raise fields.wrong("no header names certificates: an entry that does is static")
    return fields.noted(pins, now, origin)


def _cell(value: object) -> str:
    text = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _content(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(_FORMULA) else cell
