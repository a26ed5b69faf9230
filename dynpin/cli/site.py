"""`--inventory`: the site that a command is about, from its `dynpin.toml`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dynpin.cli.errors import fail
from dynpin.cli.printing import say
from dynpin.errors import DynpinError

if TYPE_CHECKING:
    from dynpin.middleware.policy import Built

__all__ = ["DEFAULT_INVENTORY", "InventoryOption", "built_of"]

DEFAULT_INVENTORY = Path("dynpin.toml")
InventoryOption = Annotated[
    Path | None,
    typer.Option(
        "--inventory",
        help="The file that describes the site; ./dynpin.toml where it exists and nothing else is named.",
        show_default=False,
    ),
]


def built_of(inventory: Path | None, *, is_named_otherwise: bool, now: float | None = None) -> Built | None:
    """What this inventory, or the one in this folder, makes; None where there is none, or no need of one.

    Args:
        inventory: the file of ``--inventory``.
        is_named_otherwise: whether the keys were named in another way.
        now: what the certificates are held against, in seconds since the epoch, UTC.
    """
    if inventory is None:
        if is_named_otherwise or not DEFAULT_INVENTORY.is_file():
            return None
        # Said, since the answer depends on a file that nobody named.
        say(f"the keys are those of {DEFAULT_INVENTORY}", err=True)
    from dynpin.middleware.policy import read_inventory  # noqa: PLC0415 - most commands are about what was named

    try:
        return read_inventory(inventory or DEFAULT_INVENTORY).build(now)
    except DynpinError as error:
        fail(str(error))
