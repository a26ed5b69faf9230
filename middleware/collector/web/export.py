"""Exports: everything that matches a filter, as CSV, JSON or NDJSON, streamed."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from typing import Literal, TypeVar

from ..storage import Page

__all__ = ["FORMATS", "Exported", "Format", "everything", "neutralised", "written"]

Exported = Literal["groups", "reports"]
Format = Literal["csv", "json", "ndjson"]
FORMATS: dict[Format, str] = {
    "csv": "text/csv; charset=utf-8",
    "json": "application/json",
    "ndjson": "application/x-ndjson",
}
Entry = TypeVar("Entry")
# The first page is short, so that an answer begins soon.
_FIRST, _CHUNK = 50, 500
# Characters of a piece of the answer.
_PIECE = 16_384
# Some programs read the full-width forms as the same signs.
_FORMULA = re.compile(r"(^\s*|;\s*)([=+\-@\uff1d\uff0b\uff0d\uff20])")


def everything(select: Callable[[str | None, int], Page[Entry]]) -> Iterator[Entry]:
    """All entries, page by page, so that an export holds one page in memory."""
    page = select(None, _FIRST)
    yield from page.entries
    while page.cursor is not None:
        page = select(page.cursor, _CHUNK)
        yield from page.entries


def written(rows: Iterator[dict[str, object]], form: Format) -> Iterator[str]:
    """The rows as text, in pieces of some kilobytes: a thread makes each piece, and each waits for its turn."""
    piece = io.StringIO()
    for text in _written(rows, form):
        piece.write(text)
        if piece.tell() >= _PIECE:
            yield piece.getvalue()
            piece = io.StringIO()
    yield piece.getvalue()


def _written(rows: Iterator[dict[str, object]], form: Format) -> Iterator[str]:
    if form == "csv":
        yield from _csv(rows)
    elif form == "ndjson":
        for row in rows:
            yield json.dumps(row) + "\n"
    else:
        separator = "["
        for row in rows:
            yield separator + json.dumps(row)
            separator = ",\n"
        yield "[]" if separator == "[" else "]\n"


def _csv(rows: Iterator[dict[str, object]]) -> Iterator[str]:
    buffer = io.StringIO()
    writer = csv.writer(buffer, quoting=csv.QUOTE_ALL)
    for number, row in enumerate(rows):
        if number == 0:
            writer.writerow(row)
        writer.writerow([neutralised(_cell(value)) for value in row.values()])
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()


def _cell(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def neutralised(cell: str) -> str:
    """A cell that no spreadsheet reads as a formula and no terminal as a command (OWASP, CSV injection).

    An apostrophe is put before a sign that begins a formula: at the start, and after a semicolon or a tab, since
    spreadsheets of some locales begin a new cell there.
    """
    if not cell.isprintable():
        # Some programs ignore quotes: for them a tab or a line break ends a cell.
        cell = "".join(
            character if character.isprintable() else " " if character in "\t\r\n" else "?" for character in cell
        )
    return _FORMULA.sub(r"\1'\2", cell)
