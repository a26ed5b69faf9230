"""`dynpin lab`: pinning on real sockets, to look at and to try out."""

from __future__ import annotations

import typer

from dynpin.cli import proxy

__all__ = ["app"]

app = typer.Typer(help="The lab: pinning on real sockets, to look at and to try out.", no_args_is_help=True)

app.command(name="proxy")(proxy.proxy)


# With a callback a group of one command stays a group.
@app.callback()
def _lab() -> None:
    """The lab: pinning on real sockets, to look at and to try out."""
