"""Sights to compare with a history: what an inventory makes, and what a node answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dynpin.errors import InvalidHeader, PolicyError
from dynpin.header import ENFORCE_NAME, REPORT_ONLY_NAME, PublicKeyPins
from dynpin.middleware.policy import Inventory, covers
from dynpin.pins import chain_pins

from .history import History
from .seen import Sight

if TYPE_CHECKING:
    from ..nodes import NodeLook  # imports the network code

__all__ = ["of_another_site", "sight_of_inventory", "sight_of_node"]


def of_another_site(history: History, place: object, inventory: Inventory) -> str | None:
    """Why a history is not that of an inventory's site; None if it is. `place` is where the history is kept."""
    if covers(inventory.hosts, history.host):
        return None
    return (
        f"{place} is the history of {history.host}, and {inventory.path} is about {', '.join(inventory.hosts)}: name "
        "the history and the inventory of one site"
    )


def sight_of_inventory(inventory: Inventory, place: str, host: str, now: float) -> Sight:
    """What an inventory and its files make at `now`, in seconds since the epoch, UTC.

    Args:
        inventory: the inventory.
        place: its name in messages.
        host: the host of the history; an inventory of another host is a failure.
        now: the time for checking certificates.
    """
    if not covers(inventory.hosts, host):
        named = ", ".join(inventory.hosts)
        return Sight(place, None, (), failure=f"it is the inventory of another site: hosts names {named}, not {host}")
    try:
        built = inventory.build(now)
    except PolicyError as error:
        return Sight(place, None, (), failure=f"it makes no header: {str(error).removeprefix(f'{inventory.path}: ')}")
    return Sight(place, built.header, built.shown)


def sight_of_node(look: NodeLook) -> Sight:
    """What one node sent and showed."""
    place = str(look.node)
    if look.failure is not None:
        return Sight(place, None, (), is_live=True, failure=look.failure)
    try:
        header = _header(look.values(ENFORCE_NAME), report_only=False) or _header(
            look.values(REPORT_ONLY_NAME), report_only=True
        )
    except InvalidHeader as error:
        return Sight(place, None, (), is_live=True, failure=f"clients ignore its header: {error}")
    return Sight(place, header, (tuple(chain_pins(look.validated)),), is_live=True)


def _header(values: Sequence[str], *, report_only: bool) -> PublicKeyPins | None:
    # RFC 7469 §2.3.1: of several fields clients use the first one.
    return PublicKeyPins.parse(values[0], report_only=report_only) if values else None
