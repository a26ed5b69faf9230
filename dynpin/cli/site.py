"""The site that a command is about: its `dynpin.toml`, named by `--inventory` or found in this folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dynpin.cli.errors import fail
from dynpin.cli.options import DEFAULT_INVENTORY
from dynpin.cli.printing import say
from dynpin.errors import DynpinError

if TYPE_CHECKING:
    from dynpin.middleware.policy import Built, Inventory
    from dynpin.middleware.policy.shared import SharedState

__all__ = ["built_of", "fetched", "inventory_of"]


def inventory_of(
    named: Path | None, *, is_named_otherwise: bool = False, beside: Path | None = None
) -> Inventory | None:
    """The inventory that is named, else the one that is found; None if there is none, or no need of one.

    What cannot be read ends the command.

    Args:
        named: the file of ``--inventory``, or None.
        is_named_otherwise: whether the keys were named in another way, so that none is looked for.
        beside: a file in whose folder one is looked for, where this folder has none.
    """
    file = named
    if file is None and not is_named_otherwise:
        places = [DEFAULT_INVENTORY] if beside is None else [DEFAULT_INVENTORY, beside.parent / DEFAULT_INVENTORY]
        file = next((place for place in places if place.is_file()), None)
        if file is not None:
            # Said, since the answer depends on a file that nobody named.
            say(f"the keys are those of {file}", err=True)
    if file is None:
        return None
    from dynpin.middleware.policy import read_inventory  # noqa: PLC0415 - most commands are about what was named

    try:
        return read_inventory(file)
    except DynpinError as error:
        fail(str(error))


def built_of(named: Path | None, *, is_named_otherwise: bool, now: float | None = None) -> Built | None:
    """What the inventory makes that :func:`inventory_of` finds; None if there is none.

    Args:
        named: the file of ``--inventory``, or None.
        is_named_otherwise: whether the keys were named in another way.
        now: what the certificates are checked against, in seconds since the epoch, UTC; the clock's time by default.
    """
    inventory = inventory_of(named, is_named_otherwise=is_named_otherwise)
    try:
        return None if inventory is None else inventory.build(now)
    except DynpinError as error:
        fail(str(error))


def fetched(site: Inventory | None) -> SharedState | None:
    """What the nodes of a site share, as the collector has it now; None if each has files of its own.

    Where the collector cannot be asked the command ends: what clients may hold would be a guess.
    """
    if site is None or site.state is None:
        return None
    from dynpin.middleware.policy.shared import SharedState  # noqa: PLC0415 - for those who share a state

    state = SharedState(site.state)
    try:
        state.fetch()
    except DynpinError as error:
        fail(str(error))
    return state
