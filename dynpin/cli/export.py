"""`dynpin export FORMAT`: the pins as a server's header line, or as static pins for a client."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from dynpin.cli.errors import fail
from dynpin.cli.options import DEFAULT_INVENTORY, InventoryOption
from dynpin.cli.printing import say
from dynpin.cli.site import inventory_of
from dynpin.deploy.export import FORMATS, HEADER_FORMATS, export_header, export_static
from dynpin.durations import duration
from dynpin.errors import DynpinError
from dynpin.hosts import KnownPinnedHost, canonical_host
from dynpin.middleware.policy import (
    LONGEST_MAX_AGE,
    Inventory,
    KeySource,
    Mode,
    in_chain,
)
from dynpin.pins import Pin

__all__ = ["export"]


def export(
    form: Annotated[
        str,
        typer.Argument(
            metavar="FORMAT",
            help="A server (nginx, apache, caddy, haproxy, traefik) or a client (android, ios, okhttp, trustkit-ios, "
            "trustkit-android, curl, wget2, dynpin, go).",
        ),
    ],
    keys: Annotated[
        list[str] | None,
        typer.Argument(
            help="Pins, or files that have one: the deployed chain first, then the backup keys or CSRs. Without any, "
            "those of the inventory.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[
        str | None, typer.Option("--host", help="The host that is pinned; static pins need it.", show_default=False)
    ] = None,
    max_age: Annotated[
        int | None, typer.Option("--max-age", help="Seconds, in a header (2592000).", min=1, show_default=False)
    ] = None,
    include_subdomains: Annotated[
        bool | None,
        typer.Option("--include-subdomains/--no-subdomains", help="Cover the subdomains too.", show_default=False),
    ] = None,
    report_uri: Annotated[
        str | None, typer.Option("--report-uri", help="Where violations are reported.", show_default=False)
    ] = None,
    mode: Annotated[
        Mode | None, typer.Option("--mode", help="What the header does (enforce).", show_default=False)
    ] = None,
    inventory: InventoryOption = None,
    expires: Annotated[
        datetime | None,
        typer.Option(
            "--expires", formats=["%Y-%m-%d"], help="The day on which static pins end, UTC.", show_default=False
        ),
    ] = None,
    watch: Annotated[
        Path | None,
        typer.Option(
            "--watch",
            metavar="FILE",
            help="Go on running, and write the lines of the inventory to FILE whenever they change.",
            show_default=False,
        ),
    ] = None,
    reload: Annotated[
        str | None,
        typer.Option(
            "--reload", metavar="COMMAND", help="With --watch: has the server read FILE again.", show_default=False
        ),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="With --watch: look once, as from cron.")] = False,
) -> None:
    """Write the pins of KEYS for FORMAT: header lines for a server, static pins for an app or a tool.

    With --watch the lines follow dynpin.toml, its key files and its ramp:
    for a server that runs no app of yours.

    Examples:
    dynpin export nginx tls/fullchain.pem backup.pub.pem
    dynpin export nginx --watch pins.conf --reload "nginx -s reload"
    """
    if form not in FORMATS:
        fail(f"{form} is not a format; there are {', '.join(FORMATS)}")
    _check_ages(max_age, expires)
    if watch is not None:
        if keys or any(each is not None for each in (host, max_age, include_subdomains, report_uri, mode, expires)):
            fail("--watch follows dynpin.toml alone: leave keys and other options out, and write them there")
        _watch(form, inventory, watch, reload, once=once)
        return
    if reload is not None or once:
        fail("--reload and --once go with --watch FILE")
    if keys and inventory is not None:
        fail("name keys or an inventory, not both")
    try:
        described = _of_keys(keys, host) if keys else inventory_of(inventory)
        if described is None:
            fail("name the keys: the deployed chain first, then the backup keys; or an --inventory that does")
        # What is said here goes before what the inventory says.
        described = replace(
            described,
            max_age=described.max_age if max_age is None else max_age,
            include_subdomains=described.include_subdomains if include_subdomains is None else include_subdomains,
            report_uri=described.report_uri if report_uri is None else report_uri,
            mode=described.mode if mode is None else mode,
            ramp=described.ramp if max_age is None else None,
        )
        if form in HEADER_FORMATS:
            text = _header_lines(form, described)
        else:
            text = _static_pins(form, described, host, expires)
    except (DynpinError, ValueError) as error:
        fail(str(error))
    typer.echo(text, nl=False)


def _check_ages(max_age: int | None, expires: datetime | None) -> None:
    if max_age is not None and max_age > LONGEST_MAX_AGE:
        fail(
            f"--max-age is {duration(max_age)}: who loses the keys locks users out for that long, and clients cap it "
            f"at about 60 days (RFC 7469 §4.1). Take {LONGEST_MAX_AGE} seconds or fewer; a dynpin.toml may say "
            "allow_long_max_age = true"
        )
    if expires is not None and expires.replace(tzinfo=UTC).timestamp() <= time.time():
        fail(f"--expires {expires:%Y-%m-%d} is past: no client would enforce these pins")


def _of_keys(keys: list[str], host: str | None) -> Inventory:
    hosts = () if host is None else (canonical_host(host),)
    return Inventory(keys=(_source(keys[0]),), backups=tuple(map(_source, keys[1:])), hosts=hosts, max_age=2_592_000)


def _source(key: str) -> KeySource:
    try:
        return Pin.from_base64(key)
    except ValueError:
        pass
    if not Path(key).is_file():
        fail(f"{key} is neither a pin nor a file")
    return Path(key)


def _header_lines(form: str, described: Inventory) -> str:
    if described.path is None:
        _check_keys(described)
    built = described.build()
    for warning in built.warnings:
        say(f"dynpin: {warning}", err=True)
    text = export_header(form, built.header)
    if described.ramp is None or not described.ramp.is_on:
        return text
    told = f"max-age is that of the ramp's step today, and does not follow it: dynpin export {form} --watch FILE does"
    say(f"dynpin: {told}", err=True)
    return f"# {told}.\n{text}"


def _check_keys(described: Inventory) -> None:
    """Refuse, in terms of this command's arguments, what Inventory would refuse in terms of keywords."""
    if described.mode != "unpin":
        reasons = [in_chain(key, described.read_chains()) for key in described.read_backups()]
        if not reasons:
            fail("a policy needs two pins: the deployed key's and a backup key's (dynpin keys new)")
        if all(reasons):
            fail(
                f"no backup stands outside the deployed chain: {'; '.join(why for why in reasons if why)}. Clients "
                "ignore such a header (RFC 7469 §2.5): name a key that is deployed nowhere (dynpin keys new)"
            )
    if described.report_uri and not described.hosts and described.read_chains()[0].names is None:
        fail("a pin or a key tells no host, and reports must go to another one: name the pinned host with --host")
    if described.mode == "report-only" and not described.report_uri:
        fail("--mode report-only does nothing without --report-uri: clients have nobody to tell (RFC 7469 §2.1.4)")


def _static_pins(form: str, described: Inventory, host: str | None, expires: datetime | None) -> str:
    if host is None and len(described.hosts) == 1:
        host = described.hosts[0]
    if host is None:
        fail(f"static pins belong to a host: dynpin export {form} --host NAME …")
    if described.path is not None:
        pins = described.build().header.pins
    else:
        leaves = [chain.pins[0] for chain in described.read_chains()]
        found = [*leaves, *(key.pin for key in described.read_backups())]
        pins = tuple(dict.fromkeys(pin for pin in found if pin is not None))
    end = None if expires is None else expires.replace(tzinfo=UTC).timestamp()
    entry = KnownPinnedHost(
        canonical_host(host), pins, described.include_subdomains, described.report_uri, int(time.time()), end, "static"
    )
    text = export_static(form, entry)
    reasons = [in_chain(key, described.read_chains(), described.roots) for key in described.read_backups()]
    if all(reasons):
        more = f": {'; '.join(why for why in reasons if why)}" if reasons else ""
        say(
            f"dynpin: no pin is that of a backup{more}. Who loses the key locks users out; add a backup key's", err=True
        )
    return text


def _watch(form: str, inventory: Path | None, file: Path, command: str | None, *, once: bool) -> None:
    if form not in HEADER_FORMATS:
        fail(f"--watch is for servers: {', '.join(HEADER_FORMATS)}")
    if not file.absolute().parent.is_dir():
        fail(f"{file.parent} is not a folder")
    from dynpin.cli.export_watch import look_once, watch_file  # noqa: PLC0415 - beside what needs it

    (look_once if once else watch_file)(inventory or DEFAULT_INVENTORY, form, file, command)
