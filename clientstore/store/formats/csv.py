"""CSV, for spreadsheets: every field of an entry except its recovery."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator

from dynpin.counts import counted
from dynpin.errors import InvalidPinFile
from dynpin.hosts import KnownPinnedHost
from dynpin.report import rfc3339

from .fields import Fields, printable, shown

__all__ = ["read_csv", "write_csv"]

_COLUMNS = (
    *("host", "pins", "include_subdomains", "report_uri", "noted_at", "expires_at", "source"),
    *("certificates", "on_expiry", "origin"),
)
# An apostrophe goes before text that a spreadsheet would take for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")
# How many rows are written as one piece of text.
_ROWS = 1_000


def write_csv(entries: Iterable[KnownPinnedHost]) -> Iterator[str]:
    """A CSV table with a heading. Each row has all pins in one cell, with spaces between; certificates likewise."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for number, entry in enumerate(entries, start=1):
        writer.writerow(_row(entry))
        if number % _ROWS == 0:
            yield table.getvalue()
            table.seek(0)
            table.truncate()
    yield table.getvalue()


def read_csv(lines: Iterable[str], *, now: float, origin: str | None = None) -> Iterator[KnownPinnedHost]:
    """The entries of a CSV table. The columns may be in any order; only ``host`` and ``pins`` are required.

    Args:
        lines: an open text file, or lines of text. Only one row is held at a time.
        now: seconds since the epoch, UTC: the time of noting for entries without one.
        origin: the name of the file, for messages.

    Raises:
        InvalidPinFile: if the text is not such a table.
    """
    rows = _rows(lines)
    heading = next(rows, None) or []
    if "host" not in heading or not {"pins", "certificates"} & set(heading):
        raise InvalidPinFile("the table has no heading with the columns host and pins")
    if len(set(heading)) < len(heading):
        twice = next(name for name in heading if heading.count(name) > 1)
        raise InvalidPinFile(f"the heading has the column {shown(twice)} twice")
    for number, row in enumerate(rows, start=2):
        if not row:
            continue
        if len(row) != len(heading):
            raise InvalidPinFile(f"row {number}: it has {counted(len(row), 'cell')}, and the heading {len(heading)}")
        cells = [_content(cell) if cell[:1] == "'" else cell for cell in row]
        try:
            entry = Fields(dict(zip(heading, cells, strict=True))).entry(now, origin)
        except ValueError as error:
            raise InvalidPinFile(f"row {number}: {error}") from None
        yield entry


def _rows(lines: Iterable[str]) -> Iterator[list[str]]:
    reader = csv.reader(lines, strict=True)
    try:
        yield from reader
    except csv.Error as error:
        raise InvalidPinFile(f"the file is not CSV: {error}, at line {reader.line_num}") from None


def _row(entry: KnownPinnedHost) -> tuple[str | None, ...]:
    """The cells of an entry, in the order of the columns; csv writes None as an empty cell."""
    return (
        _cell(entry.host),
        " ".join([f"sha256/{pin}" for pin in entry.pins]),
        "true" if entry.include_subdomains else "false",
        _cell(entry.report_uri),
        rfc3339(entry.noted_at),
        None if entry.expires_at is None else rfc3339(entry.expires_at),
        entry.source,
        " ".join([digest.hex() for digest in entry.certificates]),
        entry.on_expiry,
        _cell(entry.origin),
    )


def _cell(text: str | None) -> str:
    text = printable(text or "")
    return f"'{text}" if text.startswith(_FORMULA) else text


def _content(cell: str) -> str:
    return cell[1:] if cell[1:].startswith(_FORMULA) else cell
