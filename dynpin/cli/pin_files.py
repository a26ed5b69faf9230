"""`dynpin hosts import` and `export`: pins from and to the files of other programs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer
from platformdirs import user_data_path

from dynpin.cli.errors import fail, finding
from dynpin.cli.get import StoreOption
from dynpin.clientstore import PinStore
from dynpin.clientstore.formats import (
    read_chromium,
    read_csv,
    read_json,
    read_toml,
    read_wget2,
    write_csv,
    write_json,
    write_toml,
    write_wget2,
)
from dynpin.errors import InvalidPinFile
from dynpin.hosts import KnownPinnedHost, OnExpiry, canonical_host

__all__ = ["ExpiresOption", "OnExpiryOption", "ends", "export_pins", "import_pins", "store_path"]

ExpiresOption = Annotated[
    datetime | None,
    typer.Option("--expires", formats=["%Y-%m-%d"], help="The day on which static pins end, UTC.", show_default=False),
]
OnExpiryOption = Annotated[
    OnExpiry | None,
    typer.Option(
        "--on-expiry", help="What comes then: release the host, as if it had no pins, or refuse it.", show_default=False
    ),
]
ImportFormat = Literal["wget2", "json", "csv", "toml", "chromium"]
ExportFormat = Literal["wget2", "json", "csv", "toml"]

_WRITERS: dict[ExportFormat, Callable[[Sequence[KnownPinnedHost]], str]] = {
    "wget2": write_wget2,
    "json": write_json,
    "csv": write_csv,
    "toml": write_toml,
}


def import_pins(
    file: Annotated[str, typer.Argument(help="The file; - reads stdin.")],
    form: Annotated[
        ImportFormat | None,
        typer.Option(
            "--format", help="Its format; without it, the file's name and beginning tell.", show_default=False
        ),
    ] = None,
    keys: Annotated[
        Path | None, typer.Option("--keys", help="The .pins file that belongs to Chromium's JSON.", show_default=False)
    ] = None,
    expires: ExpiresOption = None,
    on_expiry: OnExpiryOption = None,
    store: StoreOption = None,
) -> None:
    """Import pins: wget2's pin file, JSON, CSV, TOML, or Chromium's static list. A bad file changes nothing.

    Static entries replace what the store has for a host. Noted ones, such as wget2's, give way to a static entry
    that is alive and to one that was noted later.
    """
    text, name = _read(file)
    with PinStore(store) as pins:
        now = pins.clock()
        try:
            entries = _entries(text, name, form, keys, now)
        except InvalidPinFile as error:
            fail(f"{name}: {error}")
        end = ends(expires, on_expiry)
        if end is not None:
            entries = [
                replace(entry, expires_at=end, on_expiry=on_expiry or "release")
                if entry.source == "static" and entry.expires_at is None
                else entry
                for entry in entries
            ]
        taken = pins.merge(entries)
    left = len(entries) - len(taken)
    typer.echo(
        f"{len(taken)} host{'s' if len(taken) != 1 else ''} imported" + (f", {left} left as they were" if left else "")
    )


def export_pins(
    form: Annotated[ExportFormat, typer.Option("--format", help="The format to write.")],
    hosts: Annotated[list[str] | None, typer.Argument(metavar="[HOST]…", help="These hosts; else all.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The file to write; else stdout.")] = None,
    store: StoreOption = None,
) -> None:
    """Write the Known Pinned Hosts that are alive in another program's format."""
    path = store_path(store)
    if store is not None and not path.exists():
        fail(f"there is no pin store at {store}")
    with PinStore(store) as pins:
        entries = pins.hosts()
    names = [canonical_host(host) for host in hosts or ()]
    missing = [name for name in names if name not in {entry.host for entry in entries}]
    entries = [entry for entry in entries if not names or entry.host in names]
    text = _WRITERS[form](entries)
    if output is None:
        sys.stdout.write(text)
    else:
        output.write_text(text, encoding="utf-8")
    if form == "wget2":
        for entry in entries:
            if entry.certificates:
                typer.echo(f"{entry.host} is pinned to certificates, which wget2 cannot be told", err=True)
    if missing:
        finding(f"there are no pins of {', '.join(missing)}")


def ends(expires: datetime | None, on_expiry: OnExpiry | None) -> float | None:
    """When static pins end; a day must come with what is to happen then."""
    if (expires is None) != (on_expiry is None):
        fail("--expires and --on-expiry belong together: say release or refuse")
    return None if expires is None else expires.replace(tzinfo=UTC).timestamp()


def store_path(store: Path | None) -> Path:
    """The file of the store that is meant."""
    return user_data_path("dynpin", appauthor=False) / "pins.sqlite" if store is None else store


def _read(file: str) -> tuple[str, str]:
    try:
        if file == "-":
            return sys.stdin.read(), "stdin"
        return Path(file).read_text(encoding="utf-8-sig"), file
    except UnicodeDecodeError:
        fail(f"{file} cannot be read: it is not UTF-8 text. Save it as UTF-8, or name the file that you exported")
    except OSError as error:
        fail(f"{file} cannot be read: {error.strerror}. Check its name and its permissions; - reads stdin")


def _entries(text: str, name: str, form: ImportFormat | None, keys: Path | None, now: float) -> list[KnownPinnedHost]:
    origin = name if name == "stdin" else Path(name).name
    match form or _guess(text, name, keys):
        case "wget2":
            return read_wget2(text, now=now, origin=origin)
        case "csv":
            return read_csv(text, now=now, origin=origin)
        case "toml":
            folder = None if name == "stdin" else Path(name).parent
            return read_toml(text, now=now, folder=folder, origin=origin)
        case "chromium":
            if keys is None:
                fail(
                    "Chromium's JSON names keys that stand in another file: --keys transport_security_state_static.pins"
                )
            entries, forbidding = read_chromium(text, _read(str(keys))[0], now=now, origin=origin)
            if forbidding:
                typer.echo(f"keys that these pinsets forbid are not imported: {', '.join(forbidding)}", err=True)
            return entries
        case _:
            return read_json(text, now=now, origin=origin)


def _guess(text: str, name: str, keys: Path | None) -> ImportFormat:
    if keys is not None:
        return "chromium"
    suffix = Path(name).suffix
    start = text.lstrip()[:1]
    if suffix == ".toml" or text.lstrip().startswith("[[static]]"):
        return "toml"
    if suffix == ".csv":
        return "csv"
    if start == "[" or (start == "{" and '"pinsets"' not in text):
        return "json"
    return "chromium" if start in ("{", "/") else "wget2"
