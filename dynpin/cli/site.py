"""`--inventory`: the site that a command is about, from its `dynpin.toml`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dynpin.cli.errors import fail
from dynpin.deploy.site import SiteInventory, read_site
from dynpin.errors import DynpinError

__all__ = ["DEFAULT_INVENTORY", "InventoryOption", "site_of"]

DEFAULT_INVENTORY = Path("dynpin.toml")
InventoryOption = Annotated[
    Path | None,
    typer.Option(
        "--inventory",
        help="The file that describes the site; ./dynpin.toml where it exists and nothing else is named.",
        show_default=False,
    ),
]


def site_of(inventory: Path | None, *, is_named_otherwise: bool) -> SiteInventory | None:
    """The site of this inventory, or of the one in this folder; None where there is none, or no need of one."""
    if inventory is None:
        if is_named_otherwise or not DEFAULT_INVENTORY.is_file():
            return None
        # Said, since the answer depends on a file that nobody named.
        typer.echo(f"the keys are those of {DEFAULT_INVENTORY}", err=True)
    try:
        return read_site(inventory or DEFAULT_INVENTORY)
    except DynpinError as error:
        fail(str(error))
