"""`dynpin lint --scan FILE`: the headers of many sites, counted."""

from __future__ import annotations

import errno
import gzip
import os
import sys
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from rich.table import Table

from dynpin.cli.consoles import table_console
from dynpin.cli.errors import fail, reason_of
from dynpin.cli.printing import print_json, say
from dynpin.cli.progress import progress_bar
from dynpin.counts import counted
from dynpin.deploy.lint import CLASSES, MAX_LINE, Figure, Scan, catalogue

__all__ = ["scan_file"]

_TITLES = {
    "classes": "Responses",
    "pins": "Pins in Public-Key-Pins",
    "max_age": "max-age in seconds",
    "options": "Options",
    "faults": "Faults, of the responses with a pinning header",
}
_Lines = IO[bytes] | gzip.GzipFile
_SHOWN_UNREADABLE = 5
# A line that is longer than so many times MAX_LINE ends the scan.
_MOST_PARTS = 1024
_LINES_A_STEP = 1000
# The first bytes of a gzip file.
_GZIP = b"\x1f\x8b"


def scan_file(file: str, *, as_json: bool, as_csv: bool) -> Scan:
    """Count a scan and print the figures. A file that cannot be opened or unpacked ends the command.

    Args:
        file: the path of a file of JSON lines, compressed if it ends in .gz; ``-`` is stdin.
        as_json: print JSON.
        as_csv: print rows of table, name, count and share.
    """
    result = Scan()
    name = "stdin" if file == "-" else file
    try:
        with _opened(file) as (stream, raw, size), progress_bar() as show:
            for line in _lines(stream):
                if not result.lines and line.startswith(_GZIP):
                    fail(
                        f"{name} is compressed: rename it to end in .gz, or unpack it: zcat FILE | dynpin lint --scan -"
                    )
                if line.strip():
                    _add(result, line, name)
                if result.lines % _LINES_A_STEP == 0:
                    # A pipe has no size and no position.
                    show(
                        f"{counted(result.lines, 'line')}, {result.with_header:,} with a header",
                        raw.tell() if size else 0,
                        size,
                    )
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        fail(f"{name}: the compressed data cannot be read after line {result.lines}: {error}")
    except OSError as error:
        fail(reason_of(error, name))
    if not result.lines:
        fail(f"{name} holds no line: each is a JSON object with host, status and headers")
    if result.unreadable == result.lines:
        fail(f"{name}: no line could be read; each is a JSON object with host, status and headers")
    if result.unreadable > _SHOWN_UNREADABLE:
        say(f"{name}: {result.unreadable:,} of {counted(result.lines, 'line')} could not be read", err=True)
    if as_json:
        print_json(result.to_dict())
    elif as_csv:
        sys.stdout.write(result.to_csv())
        sys.stdout.flush()
    else:
        _show(result)
    return result


def _add(result: Scan, line: bytes, name: str) -> None:
    try:
        result.add_line(line)
    except ValueError as error:
        if result.unreadable <= _SHOWN_UNREADABLE:
            say(f"{name}:{result.lines}: {error}", err=True)


@contextmanager
def _opened(file: str) -> Generator[tuple[_Lines, IO[bytes], int | None]]:
    """The lines, their file, which tells how far it was read, and its size; None for a pipe."""
    if file == "-":
        yield sys.stdin.buffer, sys.stdin.buffer, None
        return
    with Path(file).open("rb") as raw:
        size = os.fstat(raw.fileno()).st_size or None
        if file.endswith(".gz"):
            with gzip.GzipFile(fileobj=raw) as unpacked:
                yield unpacked, raw, size
        else:
            yield raw, raw, size


def _lines(stream: _Lines) -> Iterator[bytes]:
    """The lines. Of a line that is too long, only the beginning: one byte more than the limit.

    Raises:
        OSError: for a line that does not end, as of a device.
    """
    while line := stream.readline(MAX_LINE + 1):
        yield line
        parts = 0
        while len(line) > MAX_LINE and not line.endswith(b"\n"):
            parts += 1
            if parts > _MOST_PARTS:
                raise OSError(errno.EFBIG, "a line does not end after a gigabyte; a scan has a JSON object a line")
            line = stream.readline(MAX_LINE + 1)


def _show(result: Scan) -> None:
    console = table_console()
    say(
        f"{counted(result.lines, 'line')}: {counted(result.responses, 'response')}, "
        f"{result.unanswered:,} without an answer, {result.unreadable:,} that could not be read."
    )
    if result.with_header and not result.chains:
        say("No line has chain_pins: whether the pins are in the chain of their site was not looked at.")
    rows = result.figures()
    for table, title in _TITLES.items():
        mine = [row for row in rows if row.table == table]
        if not any(row.responses for row in mine):
            continue
        say(f"\n{title}")
        shown = Table(box=None, pad_edge=False)
        shown.add_column("name")
        shown.add_column("responses", justify="right")
        shown.add_column("share", justify="right")
        if table in ("classes", "faults"):
            shown.add_column("")
        for row in mine:
            share = "" if row.share is None else f"{row.share:.2%}"
            shown.add_row(row.name, f"{row.responses:,}", share, *_beside(row, result))
        console.print(shown)


def _beside(row: Figure, result: Scan) -> tuple[str, ...]:
    if row.table == "classes":
        return tuple(text for name, text in CLASSES.items() if name == row.name)
    if row.table == "faults":
        return (f"{catalogue()[row.name].severity}, such as {result.examples[row.name]}",)
    return ()
