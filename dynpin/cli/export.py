"""`dynpin export FORMAT`: the pins as a server's header line, or as static pins for a client."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from dynpin.cli.errors import fail
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
        list[str],
        typer.Argument(help="Pins, or files that have one: the deployed chain first, then the backup keys or CSRs."),
    ],
    host: Annotated[
        str | None, typer.Option("--host", help="The host that is pinned; static pins need it.", show_default=False)
    ] = None,
    max_age: Annotated[int, typer.Option("--max-age", help="Seconds, in a header.", min=0)] = 2_592_000,
    include_subdomains: Annotated[bool, typer.Option("--include-subdomains", help="Cover the subdomains too.")] = False,
    report_uri: Annotated[
        str | None, typer.Option("--report-uri", help="Where violations are reported.", show_default=False)
    ] = None,
    mode: Annotated[
        Literal["enforce", "report-only"], typer.Option("--mode", help="What the header does.")
    ] = "enforce",
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
    try:
        pins = tuple(dict.fromkeys(_pin(key) for key in keys))
        if form in HEADER_FORMATS:
            report_only = mode == "report-only"
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
        typer.echo("dynpin: one pin alone locks its users out when the key is lost; add a backup key's", err=True)


def _pin(key: str) -> Pin:
    try:
        return Pin.from_base64(key)
    except ValueError:
        pass
    try:
        return Pin.from_file(Path(key))
    except OSError as error:
        fail(f"{key} is neither a pin nor a file: {error.strerror or error}")
