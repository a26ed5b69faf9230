"""`--inventory`: the site that a command is about, from its `dynpin.toml`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dynpin.cli.errors import fail
from dynpin.cli.printing import say
from dynpin.errors import DynpinError

if TYPE_CHECKING:
    from dynpin.deploy.site import SiteInventory

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
        say(f"the keys are those of {DEFAULT_INVENTORY}", err=True)
    from dynpin.deploy.site import read_site  # noqa: PLC0415 - most commands are about what was named instead

    try:
        return read_site(inventory or DEFAULT_INVENTORY)
    except DynpinError as error:
        fail(str(error))
