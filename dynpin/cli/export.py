"""`dynpin export FORMAT`: the pins as a server's header line, or as static pins for a client."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from dynpin.cli.errors import fail
from dynpin.cli.printing import say
from dynpin.cli.site import InventoryOption, site_of
from dynpin.deploy.export import FORMATS, HEADER_FORMATS, export_header, export_static
from dynpin.errors import DynpinError
from dynpin.header import PublicKeyPins
from dynpin.hosts import KnownPinnedHost, canonical_host
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
        int | None, typer.Option("--max-age", help="Seconds, in a header (2592000).", min=0, show_default=False)
    ] = None,
    include_subdomains: Annotated[
        bool | None,
        typer.Option("--include-subdomains/--no-subdomains", help="Cover the subdomains too.", show_default=False),
    ] = None,
    report_uri: Annotated[
        str | None, typer.Option("--report-uri", help="Where violations are reported.", show_default=False)
    ] = None,
    mode: Annotated[
        Literal["enforce", "report-only"] | None,
        typer.Option("--mode", help="What the header does (enforce).", show_default=False),
    ] = None,
    inventory: InventoryOption = None,
    expires: Annotated[
        datetime | None,
        typer.Option(
            "--expires", formats=["%Y-%m-%d"], help="The day on which static pins end, UTC.", show_default=False
        ),
    ] = None,
) -> None:
    """Write the pins of KEYS for FORMAT: header lines for a server, static pins for an app or a tool."""
    if form not in FORMATS:
        fail(f"{form} is no format; there are {', '.join(FORMATS)}")
    if keys and inventory is not None:
        fail("give keys or an inventory, not both")
    site = site_of(inventory, is_named_otherwise=bool(keys))
    if site is None and not keys:
        fail("name the keys: the deployed chain first, then the backup keys; or an --inventory that does")
    given = None if site is None else site.header
    if given is not None:
        # What is said here goes before what the inventory says.
        max_age = given.max_age if max_age is None else max_age
        include_subdomains = given.include_subdomains if include_subdomains is None else include_subdomains
        report_uri = given.report_uri if report_uri is None else report_uri
        mode = ("report-only" if given.report_only else "enforce") if mode is None else mode
    if site is not None and host is None and len(site.hosts) == 1:
        host = site.hosts[0]
    include_subdomains = bool(include_subdomains)
    try:
        pins = given.pins if given else tuple(dict.fromkeys(_pin(key) for key in keys or ()))
        if form in HEADER_FORMATS:
            report_only = mode == "report-only"
            max_age = 2_592_000 if max_age is None else max_age
            header = PublicKeyPins(pins, max_age, include_subdomains, report_uri, report_only)
            text = export_header(form, header)
        else:
            if host is None:
                fail(f"static pins belong to a host: dynpin export {form} --host NAME …")
            end = None if expires is None else expires.replace(tzinfo=UTC).timestamp()
            entry = KnownPinnedHost(
                canonical_host(host), pins, include_subdomains, report_uri, int(time.time()), end, "static"
            )
            text = export_static(form, entry)
    except (DynpinError, ValueError) as error:
        fail(str(error))
    typer.echo(text, nl=False)
    if len(pins) < 2:
        say("dynpin: one pin alone locks its users out when the key is lost; add a backup key's", err=True)


def _pin(key: str) -> Pin:
    try:
        return Pin.from_base64(key)
    except ValueError:
        pass
    try:
        return Pin.from_file(Path(key))
    except OSError as error:
        fail(f"{key} is neither a pin nor a file: {error.strerror or error}")
