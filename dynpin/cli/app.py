"""The command as a whole: its groups, and what stands above them."""

from __future__ import annotations

from typing import Annotated

import typer

from dynpin._version import __version__
from dynpin.cli import (
    check,
    collect,
    demo,
    export,
    get,
    guard,
    hosts,
    keys,
    lab,
    lint,
    pin,
    ramp,
    reports,
    rotate,
    simulate,
)

__all__ = ["app"]

app = typer.Typer(
    name="dynpin",
    help="HTTP Public Key Pinning (RFC 7469): pin keys, remember them, refuse everything else.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"dynpin {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """HTTP Public Key Pinning (RFC 7469): pin keys, remember them, refuse everything else."""


_CLIENT, _SERVER, _STUDY = "For clients", "For servers", "For study"

app.command(name="get", rich_help_panel=_CLIENT)(get.get)
app.add_typer(hosts.app, name="hosts", rich_help_panel=_CLIENT)
app.add_typer(reports.app, name="reports", rich_help_panel=_CLIENT)
app.command(name="pin", rich_help_panel=_SERVER)(pin.pin)
app.add_typer(keys.app, name="keys", rich_help_panel=_SERVER)
app.command(name="lint", rich_help_panel=_SERVER)(lint.lint)
app.command(name="check", rich_help_panel=_SERVER)(check.check)
app.add_typer(ramp.app, name="ramp", rich_help_panel=_SERVER)
app.add_typer(rotate.app, name="rotate", rich_help_panel=_SERVER)
app.command(name="guard", rich_help_panel=_SERVER)(guard.guard)
app.command(name="export", rich_help_panel=_SERVER)(export.export)
app.add_typer(collect.app, name="collect", rich_help_panel=_SERVER)
app.command(name="demo", rich_help_panel=_STUDY)(demo.demo)
app.add_typer(lab.app, name="lab", rich_help_panel=_STUDY)
app.command(name="simulate", rich_help_panel=_STUDY)(simulate.simulate)
