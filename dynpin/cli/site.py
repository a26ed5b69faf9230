"""The site of a command: its `dynpin.toml`, named by `--inventory` or found in this folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dynpin.cli.options import DEFAULT_INVENTORY
from dynpin.cli.printing import say

if TYPE_CHECKING:
    from dynpin.middleware.policy import Inventory
    from dynpin.middleware.policy.shared import SharedState

__all__ = ["fetched", "inventory_of"]


def inventory_of(
    named: Path | None, *, is_named_otherwise: bool = False, beside: Path | None = None
) -> Inventory | None:
    """The named inventory, or the one of the folder; None if there is none, or none is needed.

    Args:
        named: the file of ``--inventory``, or None.
        is_named_otherwise: whether the keys were named in another way, so that no inventory is needed.
        beside: a file; the inventory in its folder comes before the one in this folder.
    """
    file = named
    if file is None and not is_named_otherwise:
        places = [DEFAULT_INVENTORY] if beside is None else [beside.parent / DEFAULT_INVENTORY, DEFAULT_INVENTORY]
        file = next((place for place in places if place.is_file()), None)
        if file is not None:
            # Say so, since the user did not name the file.
            say(f"the keys are those of {file}", err=True)
    if file is None:
        return None
    from dynpin.middleware.policy import read_inventory  # noqa: PLC0415 - most commands do not need it

    return read_inventory(file)


def fetched(site: Inventory | None) -> SharedState | None:
    """The current shared state of the nodes, from the collector; None if each node has its own files.

    Raises:
        PolicyError: if the collector cannot be asked, since the headers that clients hold would be a guess.
    """
    if site is None or site.state is None:
        return None
    from dynpin.middleware.policy.shared import SharedState  # noqa: PLC0415 - only a shared state needs it

    state = SharedState(site.state)
    state.fetch()
    return state
