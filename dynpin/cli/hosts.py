"""`dynpin hosts`: the Known Pinned Hosts of a pin store. Some options are those of ssh-keygen."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from dynpin.cli import hosts_recovery, pin_files
from dynpin.cli.consoles import table_console
from dynpin.cli.errors import fail, finding
from dynpin.cli.options import AcceptClockOption, ExpiresOption, JsonOption, ReportUriOption
from dynpin.cli.pin_files import OnExpiryOption, ends
from dynpin.cli.printing import print_json, say
from dynpin.cli.stores import StoreOption, existing_store
from dynpin.clientstore.store import PinStore, Refusal, forget_command
from dynpin.clientstore.store import check as check_file
from dynpin.clientstore.store import repair as repair_file
from dynpin.clientstore.store.formats import certificate_digest, describe
from dynpin.counts import counted
from dynpin.durations import duration
from dynpin.errors import StoreError
from dynpin.hosts import KnownPinnedHost, canonical_host
from dynpin.pins import Pin
from dynpin.report import rfc3339

__all__ = ["app"]

app = typer.Typer(invoke_without_command=True)

HostArgument = Annotated[str, typer.Argument(help="A host name.")]


@app.callback()
def hosts(
    context: typer.Context,
    find: Annotated[str | None, typer.Option("-F", metavar="HOST", help="Find HOST, as `show` does.")] = None,
    remove: Annotated[str | None, typer.Option("-R", metavar="HOST", help="Remove HOST, as `forget` does.")] = None,
    store: StoreOption = None,
) -> None:
    """The Known Pinned Hosts of a pin store: list, show, forget, pin, import, export and check them.

    -F and -R work as in ssh-keygen.

    Example: dynpin hosts -F www.example.com
    """
    if context.invoked_subcommand is not None:
        if find is not None or remove is not None or store is not None:
            fail(f"write the options after the verb: dynpin hosts {context.invoked_subcommand} …")
        return
    if find is not None and remove is not None:
        fail("-F finds and -R removes: give one of them")
    if find is not None:
        show(find, store)
    elif remove is not None:
        forget([remove], store)
    else:
        typer.echo(context.get_help())
        raise typer.Exit(0 if store is None else 2)


@app.command("list")
def list_hosts(
    store: StoreOption = None,
    everything: Annotated[bool, typer.Option("--all", help="List expired hosts too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the Known Pinned Hosts: when the pins of each expire, when they were noted, and where they came from.

    On stderr: the hosts that the store did not note because a limit was reached.

    Example: dynpin hosts list --all
    """
    with existing_store(store) as pins:
        entries = pins.hosts(include_expired=everything)
        refusals = pins.refusals()
        now = pins.clock()
    if as_json:
        print_json([describe(entry) for entry in entries])
    elif not entries:
        say(f"No host is pinned in {pins.path}.")
    else:
        _show_list(entries, now)
    for refusal in refusals:
        say(_refused(refusal, now), err=True)


def _show_list(entries: list[KnownPinnedHost], now: float) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("host", "covers", "expires", "noted", "source", "pins"):
        table.add_column(column, overflow="fold", justify="right" if column == "pins" else "left")
    for entry in entries:
        table.add_row(
            entry.host,
            "with subdomains" if entry.include_subdomains else "host alone",
            _lifetime(entry, now),
            f"{duration(now - entry.noted_at)} ago",
            entry.source,
            str(len(entry.pins) + len(entry.certificates)),
        )
    table_console().print(table)


@app.command()
def show(host: HostArgument, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Show the pins for HOST, its own or a superdomain's. The exit code is 1 if there are none.

    Example: dynpin hosts show www.example.com
    """
    name = canonical_host(host)
    with existing_store(store) as pins:
        known = pins.known_host(name)
        expired = None if known is not None else pins.entry(name)
        now = pins.clock()
        listed = hosts_recovery.ListState.of(pins, known)
    if as_json:
        shown = None if known is None else {"asked": name, **describe(known), **listed.to_dict()}
        print_json(shown)
    elif known is not None:
        details = _details(name, known, now)
        for label, text in hosts_recovery.details(known, listed, now):
            details.add_row(label, text)
        table_console().print(details)
    if known is None:
        end = None if expired is None else expired.expires_at
        ended = "" if end is None else f": its pins expired at {rfc3339(end)}"
        finding(None if as_json else f"{name} is not pinned in {pins.path}{ended}{_see_list(store)}")


@app.command()
def forget(
    names: Annotated[list[str], typer.Argument(metavar="HOST", help="Host names.")],
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Forget the pins of each HOST: the next visit counts as the first. The exit code is 1 if a HOST has none.

    Example: dynpin hosts forget www.example.com
    """
    done: list[dict[str, object]] = []
    left: list[str] = []
    with existing_store(store) as pins:
        for name in map(canonical_host, names):
            try:
                entry = pins.entry(name)
            except StoreError:  # this row, or that of a superdomain, is damaged; forget() reports other faults
                entry = None
            was_alive = pins.forget(name)
            try:
                covering = pins.known_host(name)
            except StoreError as error:
                left.append(str(error))
                covering = None
            is_forgotten = entry is not None or was_alive
            still = None if covering is None else covering.host
            done.append({"host": name, "forgotten": is_forgotten, "still_pinned_by": still})
            covered = "" if covering is None else _covered(covering, store)
            if not is_forgotten:
                left.append(f"{name} has no pins of its own in {pins.path}{covered or _see_list(store)}")
                continue
            if as_json:
                continue
            say(f"{name}: {'the entry' if entry is None else _count(entry)} forgotten")
            if covering is not None:
                say(f"{name} is still pinned{covered}")
    if as_json:
        print_json(done)
    if left:
        finding("\n        ".join(left))


@app.command()
def pin(
    host: HostArgument,
    keys: Annotated[
        list[str] | None,
        typer.Argument(metavar="PIN|FILE", help="Pins in base64, or files with a certificate, a CSR or a key."),
    ] = None,
    certificates: Annotated[
        list[str] | None,
        typer.Option(
            "--certificate", metavar="HEX", help="The SHA-256 of an exact certificate, in hexadecimal. Repeatable."
        ),
    ] = None,
    include_subdomains: Annotated[bool, typer.Option("--include-subdomains", help="Cover the subdomains too.")] = False,
    report_uri: ReportUriOption = None,
    expires: ExpiresOption = None,
    on_expiry: OnExpiryOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Set a static pin for HOST, which no header changes. It replaces the entry in the store.

    Example: dynpin hosts pin www.example.com tls/fullchain.pem backup.pub.pem
    """
    pins = [_pin(key) for key in keys or ()]
    exact = [certificate_digest(text) for text in certificates or ()]
    if not pins and not exact:
        fail(f"name a pin or a key file of {host}: dynpin hosts pin {host} FILE")
    with PinStore(store) as kept:
        covered = not include_subdomains and _covers(kept, host)
        entry = kept.pin(
            host,
            pins,
            certificates=exact,
            include_subdomains=include_subdomains,
            report_uri=report_uri,
            expires_at=ends(expires, on_expiry),
            on_expiry=on_expiry or "release",
        )
        if as_json:
            print_json(describe(entry))
        else:
            table_console().print(_details(entry.host, entry, kept.clock()))
    if covered:
        say(
            f"The subdomains of {entry.host} are no longer covered: --include-subdomains covers them.",
            err=True,
        )
    if exact:
        say("The next renewal of the certificate breaks this pin, even with the same key.", err=True)
    elif len(entry.pins) == 1:
        say("There is no Backup Pin: when this key is lost or changed, the host is locked out.", err=True)


app.command()(hosts_recovery.recover)
app.command()(hosts_recovery.follow)
app.command("import")(pin_files.import_pins)
app.command("export")(pin_files.export_pins)


@app.command()
def check(
    store: StoreOption = None,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Save what can be read into a new file, and keep the damaged one beside it."),
    ] = False,
    accept_clock: AcceptClockOption = False,
    as_json: JsonOption = False,
) -> None:
    """Check the file of the store, and show the hosts that it did not note because a limit was reached.

    The exit code is 1 if a fault remains. Before --repair, stop the programs that use the store.

    Example: dynpin hosts check --repair
    """
    path = pin_files.store_path(store)
    if accept_clock:
        with existing_store(store) as pins:
            pins.accept_clock()
    now = time.time()
    faults = check_file(path, now)
    if repair and faults and path.exists():
        done = repair_file(path, now)
        say(f"{counted(done.kept, 'host')} saved; the damaged file is {done.aside}", err=True)
        faults = check_file(path, now)
    refusals: list[Refusal] = []
    # Do not open a store with a fault: opening would accept the clock that it complains of.
    if not faults:
        with PinStore(path) as pins:
            refusals = pins.refusals()
    if as_json:
        not_noted = [asdict(refusal) | {"refused_at": rfc3339(refusal.refused_at)} for refusal in refusals]
        told = {"store": str(path), "ok": not faults, "faults": faults, "refusals": not_noted}
        print_json(told)
    elif not faults:
        say(f"{path} is sound.")
        for refusal in refusals:
            say(_refused(refusal, now))
    if faults:
        finding(None if as_json else "\n        ".join(faults))


def _pin(text: str) -> Pin:
    file = Path(text)
    if file.is_file():
        return Pin.from_file(file)
    try:
        return Pin.from_base64(text.removeprefix("sha256/"))
    except ValueError:
        raise ValueError(f"there is no file {text}, and it is not a pin in base64, of 44 characters") from None


def _covers(pins: PinStore, host: str) -> bool:
    """Whether a host has its own entry that has not expired and covers its subdomains."""
    try:
        entry = pins.entry(canonical_host(host))
    except StoreError:  # the row is damaged, and the new entry replaces it
        return False
    return entry is not None and entry.include_subdomains and not entry.is_expired(pins.clock())


def _covered(covering: KnownPinnedHost, store: Path | None) -> str:
    return f": {covering.host} covers its subdomains. To forget that one:  {forget_command(covering.host, store)}"


def _see_list(store: Path | None) -> str:
    return f"; dynpin hosts list{'' if store is None else f' --store {store}'} shows the pinned hosts"


def _count(entry: KnownPinnedHost) -> str:
    number = len(entry.pins) + len(entry.certificates)
    return counted(number, f"{entry.source} pin")


def _refused(refusal: Refusal, now: float) -> str:
    return f"{refusal} ({duration(now - refusal.refused_at)} ago)"


def _details(asked: str, known: KnownPinnedHost, now: float) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    by = "" if known.host == asked else f"  (the nearest superdomain of {asked} that covers it)"
    table.add_row("host", f"{known.host}{by}")
    table.add_row("covers", f"{known.host} and its subdomains" if known.include_subdomains else f"{known.host} alone")
    for index, pin in enumerate(known.pins):
        table.add_row("pins" if index == 0 else "", str(pin))
    for index, digest in enumerate(known.certificates):
        table.add_row("certificates" if index == 0 else "", digest.hex())
    table.add_row("noted", f"{rfc3339(known.noted_at)}, {duration(now - known.noted_at)} ago")
    until = "" if known.expires_at is None else f"{rfc3339(known.expires_at)}, "
    then = ", and refuses from then on" if known.on_expiry == "refuse" else ""
    table.add_row("expires", f"{until}{_lifetime(known, now)}{then}")
    origin = "" if known.origin is None else f", from {known.origin}"
    table.add_row("source", f"{'a response header' if known.source == 'header' else 'static'}{origin}")
    if known.report_uri is not None:
        table.add_row("report-uri", known.report_uri)
    return table


def _lifetime(entry: KnownPinnedHost, now: float) -> str:
    if entry.expires_at is None:
        return "never"
    if entry.is_expired(now):
        return f"expired {duration(now - entry.expires_at)} ago"
    return f"in {duration(entry.expires_at - now)}"
