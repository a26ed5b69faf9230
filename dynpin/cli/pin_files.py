"""`dynpin hosts import` and `export`: pins from and to the files of other programs."""

from __future__ import annotations

import io
import os
import stat
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, TextIO, cast

import typer

from dynpin.cli.errors import fail, finding, reason_of
from dynpin.cli.options import ExpiresOption, JsonOption
from dynpin.cli.printing import print_json, printable, say
from dynpin.cli.progress import Show, progress_bar
from dynpin.cli.stores import StoreOption, existing_store
from dynpin.cli.streams import is_cut_off
from dynpin.clientstore import PinStore
from dynpin.clientstore.store import default_path
from dynpin.clientstore.store.formats import (
    lost_in_wget2,
    read_chromium,
    read_csv,
    read_json,
    read_jsonl,
    read_toml,
    read_wget2,
    write_csv,
    write_json,
    write_jsonl,
    write_toml,
    write_wget2,
)
from dynpin.counts import counted
from dynpin.errors import InvalidPinFile
from dynpin.hosts import KnownPinnedHost, OnExpiry, canonical_host

__all__ = ["OnExpiryOption", "ends", "export_pins", "import_pins", "store_path"]

OnExpiryOption = Annotated[
    OnExpiry | None,
    typer.Option(
        "--on-expiry",
        help="What happens then: release the host, as if it had no pins, or refuse it.",
        show_default=False,
    ),
]
ImportFormat = Literal["wget2", "json", "jsonl", "csv", "toml", "chromium"]
ExportFormat = Literal["wget2", "json", "jsonl", "csv", "toml"]

_WRITERS: dict[ExportFormat, Callable[[Iterable[KnownPinnedHost]], Iterator[str]]] = {
    "wget2": write_wget2,
    "json": write_json,
    "jsonl": write_jsonl,
    "csv": write_csv,
    "toml": write_toml,
}
_SUFFIXES: dict[str, ImportFormat] = {".toml": "toml", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
# These are read line by line, so a line has a limit.
_BY_LINE = ("wget2", "jsonl", "csv")
_LONGEST_LINE = 1024 * 1024
# How much of the file is read to find the format.
_BEGINNING = 64 * 1024
# The bar is updated after so many entries.
_STEP = 1_000


def import_pins(
    file: Annotated[str, typer.Argument(help="The file; - reads stdin.")],
    form: Annotated[
        ImportFormat | None,
        typer.Option(
            "--format",
            help="The format. By default it is found from the file's name and its first lines.",
            show_default=False,
        ),
    ] = None,
    keys: Annotated[
        Path | None, typer.Option("--keys", help="The .pins file that belongs to Chromium's JSON.", show_default=False)
    ] = None,
    expires: ExpiresOption = None,
    on_expiry: OnExpiryOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Import pins: wget2's pin file, JSON, JSON lines, CSV, TOML, or Chromium's list. A bad file changes nothing.

    Static entries replace the entry of the store. Noted ones, such as wget2's, do not replace a static entry that has
    not expired, or an entry that was noted later. wget2's file, JSON lines and CSV may have a million hosts.

    Example: dynpin hosts import pins.csv
    """
    end = ends(expires, on_expiry)
    with _opened(file) as text:
        name = "stdin" if file == "-" else file
        chosen = form or _guess(_beginning(text), name, keys)
        try:
            entries = _entries(_lines(text, chosen), name, chosen, keys)
            with PinStore(store) as pins, progress_bar() as show:
                reading = _Reading(_ending(entries, end, on_expiry or "release"), text, show)
                taken = pins.merge(reading, progress=reading.merged)
        except InvalidPinFile as error:
            fail(f"{name}: {error}")
    left = reading.count - taken
    if as_json:
        print_json({"imported": taken, "not_taken": left})
        return
    say(
        f"{counted(taken, 'host')} imported"
        + (f", {left:,} not taken: expired, or older than what is there" if left else "")
    )


def export_pins(
    form: Annotated[ExportFormat, typer.Option("--format", help="The format to write.")],
    hosts: Annotated[list[str] | None, typer.Argument(metavar="HOST", help="These hosts. The default is all.")] = None,
    output: Annotated[
        Path | None, typer.Option("--out", "-o", help="The file to write. The default is stdout.")
    ] = None,
    store: StoreOption = None,
) -> None:
    """Write the Known Pinned Hosts that are alive in another program's format.

    The file is written whole or not at all. JSON and TOML are for up to 10,000 hosts, the others for a million.

    Example: dynpin hosts export --format json --out pins.json
    """
    names = sorted(map(canonical_host, hosts or ()))
    missing: list[str] = []
    with existing_store(store) as pins, progress_bar(is_wanted=output is not None or not sys.stdout.isatty()) as show:
        entries = _own(pins, names, missing) if names else pins.each()
        entries = _shown(entries, len(pins) if sys.stderr.isatty() else None, show)
        pieces = _WRITERS[form](_telling(entries) if form == "wget2" else entries)
        if output is None:
            _print(pieces)
        else:
            with _replaced(output) as file:
                file.writelines(pieces)
    if missing:
        finding(f"{pins.path} has no pins of {', '.join(missing)}; dynpin hosts list shows the pinned hosts")


def ends(expires: datetime | None, on_expiry: OnExpiry | None) -> float | None:
    """When static pins end. --expires and --on-expiry must be used together."""
    if (expires is None) != (on_expiry is None):
        fail("--expires and --on-expiry belong together: say release or refuse")
    return None if expires is None else expires.replace(tzinfo=UTC).timestamp()


def store_path(store: Path | None) -> Path:
    """The file of the named store, or of the user's own."""
    return default_path() if store is None else store


# -- import -----------------------------------------------------------------------------------------------------------


@contextmanager
def _opened(file: str) -> Generator[io.TextIOWrapper[io.BufferedReader[io.FileIO]], None, None]:
    """Open a file or stdin as UTF-8, with or without a BOM. If it is not UTF-8, the command ends."""
    try:
        binary = io.BufferedReader(io.FileIO(os.dup(0) if file == "-" else file), _BEGINNING)
    except OSError as error:
        fail(f"{reason_of(error, f'{file} cannot be read')}; - reads stdin")
    with io.TextIOWrapper(binary, encoding="utf-8-sig") as text:
        try:
            yield text
        except UnicodeDecodeError:
            fail(f"{file} cannot be read: it is not UTF-8 text. Save it as UTF-8, or name the file that you exported")


def _beginning(text: io.TextIOWrapper[io.BufferedReader[io.FileIO]]) -> str:
    """The first lines, without moving the position."""
    return text.buffer.peek(_BEGINNING).decode("utf-8-sig", "ignore")


def _lines(text: TextIO, form: ImportFormat) -> Iterator[str]:
    """The lines, with a limit, so that none fills the memory. JSON may be one long line, and comes in parts."""
    number = 0
    while line := text.readline(_LONGEST_LINE):
        number += 1
        if len(line) == _LONGEST_LINE and form in _BY_LINE:
            raise InvalidPinFile(f"line {number} is longer than a line of {form} may be: {_LONGEST_LINE:,} characters")
        yield line


def _entries(lines: Iterable[str], name: str, form: ImportFormat, keys: Path | None) -> Iterable[KnownPinnedHost]:
    now = time.time()
    origin = printable(Path(name).name)
    match form:
        case "wget2":
            return read_wget2(lines, now=now, origin=origin)
        case "jsonl":
            return read_jsonl(lines, now=now, origin=origin)
        case "csv":
            return read_csv(lines, now=now, origin=origin)
        case "toml":
            folder = None if name == "stdin" else Path(name).parent
            return read_toml(lines, now=now, folder=folder, origin=origin)
        case "json":
            return read_json(lines, now=now, origin=origin)
        case "chromium":
            if keys is None:
                fail("Chromium's JSON names keys of another file: --keys transport_security_state_static.pins")
            with _opened(str(keys)) as text:
                named = text.readlines()
            entries, forbidding = read_chromium(lines, named, now=now, origin=origin)
            if forbidding:
                say(f"keys that these pinsets forbid are not imported: {', '.join(forbidding)}", err=True)
            return entries


def _ending(entries: Iterable[KnownPinnedHost], end: float | None, on_expiry: OnExpiry) -> Iterable[KnownPinnedHost]:
    """The entries. Static ones without an end get this end."""
    if end is None:
        return entries
    return (
        replace(entry, expires_at=end, on_expiry=on_expiry)
        if entry.source == "static" and entry.expires_at is None
        else entry
        for entry in entries
    )


class _Reading:
    """Iterates once over the entries of a file. Counts them, and shows on the bar how far they are read and merged."""

    def __init__(self, entries: Iterable[KnownPinnedHost], text: TextIO, show: Show) -> None:
        self.count = 0
        self._entries, self._binary, self._show = entries, text.buffer, show
        self._size = os.fstat(text.fileno()).st_size or None  # a pipe has none

    def __iter__(self) -> Iterator[KnownPinnedHost]:
        for entry in self._entries:
            self.count += 1
            if self.count % _STEP == 0:
                self._show(f"{counted(self.count, 'host')} read", self._binary.tell() if self._size else 0, self._size)
            yield entry

    def merged(self, count: int) -> None:
        self._show(f"{counted(count, 'host')} merged", count, self.count)


def _guess(beginning: str, name: str, keys: Path | None) -> ImportFormat:
    suffix = Path(name).suffix.lower()
    if keys is not None:
        return "chromium"
    if suffix in _SUFFIXES:
        return _SUFFIXES[suffix]
    lines = [line.strip() for line in beginning.splitlines()]
    if "[[static]]" in lines:
        return "toml"
    first = next((line for line in lines if line and not line.startswith("#")), "")
    if first.startswith("/") or (first.startswith("{") and '"pinsets"' in beginning):
        return "chromium"
    if first.startswith("[") or suffix == ".json" or first == "{":
        return "json"
    if first.startswith("{"):
        return "jsonl"
    return "csv" if "," in first and "host" in first.replace('"', "").split(",") else "wget2"


# -- export -----------------------------------------------------------------------------------------------------------


def _own(pins: PinStore, names: list[str], missing: list[str]) -> Iterator[KnownPinnedHost]:
    """The hosts' own entries that have not expired. Hosts without one are added to `missing`."""
    for name in dict.fromkeys(names):
        known = pins.known_host(name)
        if known is not None and known.host == name:
            yield known
        else:
            missing.append(name)


def _shown(entries: Iterable[KnownPinnedHost], total: int | None, show: Show) -> Iterator[KnownPinnedHost]:
    for number, entry in enumerate(entries, start=1):
        if number % _STEP == 0:
            show(f"{counted(number, 'host')} written", number, total)
        yield entry


def _telling(entries: Iterable[KnownPinnedHost]) -> Iterator[KnownPinnedHost]:
    """The entries. Stderr gets what wget2's format cannot express."""
    is_told = False
    for entry in entries:
        if entry.source == "static" and not is_told:
            is_told = True
            say("Static pins become noted ones in this file: an import keeps them for 60 days at most.", err=True)
        lost = lost_in_wget2(entry)
        if lost is not None:
            say(lost, err=True)
        yield entry


def _print(pieces: Iterable[str]) -> None:
    if not sys.stdout.isatty():  # then it is a file for another program, and import reads UTF-8
        cast("io.TextIOWrapper[io.BufferedWriter]", sys.stdout).reconfigure(encoding="utf-8")
    for piece in pieces:
        sys.stdout.write(piece)
        if is_cut_off():
            return


@contextmanager
def _replaced(output: Path) -> Generator[TextIO, None, None]:
    """A new file that replaces `output` when it is complete. A device or a pipe is written directly."""
    target = Path(os.path.realpath(output))  # a link stays a link
    if target.exists() and not target.is_file():
        with target.open("w", encoding="utf-8", newline="\n") as file:
            yield file
        return
    beside = target.with_name(f".dynpin-{os.urandom(8).hex()}")
    try:
        new = beside.open("x", encoding="utf-8", newline="\n")
    except OSError as error:
        fail(reason_of(error, f"{output} cannot be written"))
    try:
        with new:
            yield new
            new.flush()
            os.fsync(new.fileno())
        if target.exists():
            beside.chmod(stat.S_IMODE(target.stat().st_mode))
        beside.replace(target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
