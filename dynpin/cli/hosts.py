"""`dynpin hosts`: the Known Pinned Hosts of a pin store, with the habits of ssh-keygen and known_hosts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from dynpin.cli.errors import fail, finding
from dynpin.cli.get import StoreOption, describe
from dynpin.clientstore import PinStore
from dynpin.clientstore.explain import duration
from dynpin.hosts import KnownPinnedHost, canonical_host
from dynpin.report import rfc3339

__all__ = ["app"]

app = typer.Typer(
    help="The Known Pinned Hosts of a pin store: list, show, forget, pin, import, export and check them.",
    invoke_without_command=True,
)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
HostArgument = Annotated[str, typer.Argument(help="A host name.")]


@app.callback()
def hosts(
    context: typer.Context,
    find: Annotated[str | None, typer.Option("-F", metavar="HOST", help="Find HOST, as `show` does.")] = None,
    remove: Annotated[str | None, typer.Option("-R", metavar="HOST", help="Remove HOST, as `forget` does.")] = None,
    store: StoreOption = None,
) -> None:
    """The Known Pinned Hosts of a pin store. -F and -R are those of ssh-keygen."""
    if context.invoked_subcommand is not None:
        if find is not None or remove is not None or store is not None:
            fail(f"give the options behind the verb: dynpin hosts {context.invoked_subcommand} …")
        return
    if (find is None) == (remove is None):
        if find is not None:
            fail("-F finds and -R removes: give one of them")
        typer.echo(context.get_help())
        raise typer.Exit(2 if store is not None else 0)
    if find is not None:
        show(find, store)
    elif remove is not None:
        forget([remove], store)


@app.command("list")
def list_hosts(
    store: StoreOption = None,
    everything: Annotated[bool, typer.Option("--all", help="List the expired ones too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the Known Pinned Hosts: how long each pin still lives, and where it came from."""
    with PinStore(store) as pins:
        entries = pins.hosts(include_expired=everything)
        now = pins.clock()
    if as_json:
        typer.echo(json.dumps([describe(entry) for entry in entries], indent=2))
        return
    if not entries:
        typer.echo("No host is pinned.")
        return
    table = Table(box=None, pad_edge=False)
    for column in ("host", "covers", "expires", "noted", "source", "pins"):
        table.add_column(column, overflow="fold", justify="right" if column == "pins" else "left")
    for entry in entries:
        table.add_row(
            entry.host,
            "host and subdomains" if entry.include_subdomains else "host",
            _lifetime(entry, now),
            f"{duration(now - entry.noted_at)} ago",
            entry.source,
            str(len(entry.pins)),
        )
    _console().print(table)


@app.command()
def show(host: HostArgument, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Show which pins hold for HOST, its own or a superdomain's. Exit code 1 where there are none."""
    name = canonical_host(host)
    with PinStore(store) as pins:
        known = pins.known_host(name)
        expired = None if known is not None else pins.entry(name)
        now = pins.clock()
    if as_json:
        typer.echo(json.dumps(None if known is None else {"asked": name, **describe(known)}, indent=2))
    elif known is not None:
        _console().print(_details(name, known, now))
    if known is None:
        end = None if expired is None else expired.expires_at
        ended = "" if end is None else f": its pins expired at {rfc3339(end)}"
        finding(None if as_json else f"{name} is not pinned{ended}")


@app.command()
def forget(
    names: Annotated[list[str], typer.Argument(metavar="HOST…", help="Host names.")], store: StoreOption = None
) -> None:
    """Forget the pins of each HOST, so that the next visit is a first use again. Exit code 1 where it has none."""
    missing: list[str] = []
    with PinStore(store) as pins:
        for name in map(canonical_host, names):
            entry = pins.entry(name)
            pins.forget(name)
            covering = pins.known_host(name)
            if entry is None:
                missing.append(
                    f"{name} has no pins of its own" + ("" if covering is None else _covered(covering, store))
                )
            else:
                typer.echo(f"{name}: {len(entry.pins)} {entry.source} pins forgotten")
                if covering is not None:
                    typer.echo(f"{name} is still pinned{_covered(covering, store)}")
    if missing:
        finding("\n        ".join(missing))


def _covered(covering: KnownPinnedHost, store: Path | None) -> str:
    where = "" if store is None else f" --store {store}"
    return f": {covering.host} covers its subdomains. To forget that one:  dynpin hosts forget {covering.host}{where}"


def _details(asked: str, known: KnownPinnedHost, now: float) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    by = "" if known.host == asked else f"  (the nearest superdomain of {asked} that covers it)"
    table.add_row("host", f"{known.host}{by}")
    table.add_row("covers", f"{known.host} and its subdomains" if known.include_subdomains else known.host)
    for index, pin in enumerate(known.pins):
        table.add_row("pins" if index == 0 else "", str(pin))
    table.add_row("noted", f"{rfc3339(known.noted_at)}, {duration(now - known.noted_at)} ago")
    until = "" if known.expires_at is None else f"{rfc3339(known.expires_at)}, in "
    table.add_row("expires", f"{until}{_lifetime(known, now).removeprefix('in ')}")
    table.add_row("source", "a response header" if known.source == "header" else "static, kept by hand or by import")
    if known.report_uri is not None:
        table.add_row("report-uri", known.report_uri)
    return table


def _lifetime(entry: KnownPinnedHost, now: float) -> str:
    if entry.expires_at is None:
        return "never"
    if entry.is_expired(now):
        return f"expired {duration(now - entry.expires_at)} ago"
    return f"in {duration(entry.expires_at - now)}"


def _console() -> Console:
    return Console(markup=False, highlight=False)
