"""The command as a whole: its groups, and what stands above them."""

from __future__ import annotations

from typing import Annotated

import typer

from dynpin._version import __version__
from dynpin.cli import collect, demo, get, lint, pin

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


app.command(name="pin")(pin.pin)
app.command(name="get")(get.get)
app.command(name="lint")(lint.lint)
app.add_typer(collect.app, name="collect")
app.command(name="demo")(demo.demo)
