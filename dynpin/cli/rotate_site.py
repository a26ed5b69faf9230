"""The site that `dynpin rotate` is about: its history, its inventory, and its nodes as they answer."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dynpin.cli.errors import fail, reason_of
from dynpin.cli.options import DEFAULT_INVENTORY
from dynpin.cli.printing import say
from dynpin.cli.urls import https_url
from dynpin.deploy.rotation import History, HistoryError, Sight
from dynpin.errors import DynpinError, PolicyError
from dynpin.pins import Pin

if TYPE_CHECKING:
    from dynpin.middleware.policy import Chain, Inventory, Key

__all__ = [
    "change",
    "inventory_beside",
    "key_of",
    "nodes_seen",
    "on_ramp",
    "read_history",
    "refuse_inside",
    "sight",
]


def inventory_beside(inventory: Path | None, history: Path) -> Inventory | None:
    """The inventory that is named, or stands beside the history; None where there is none."""
    try:
        return _inventory_beside(inventory, history)
    except PolicyError as error:
        fail(str(error))


def _inventory_beside(inventory: Path | None, history: Path) -> Inventory | None:
    if inventory is None:
        inventory = history.parent / DEFAULT_INVENTORY
        if not inventory.is_file():
            return None
    from dynpin.middleware.policy import read_inventory  # noqa: PLC0415 - where there is one

    return read_inventory(inventory)


def sight(site: Inventory, host: str, now: float) -> Sight:
    """What an inventory makes at `now`, to be held against the history of this host."""
    from dynpin.deploy.rotation.sights import sight_of_inventory  # noqa: PLC0415 - it reads keys

    file = site.path or DEFAULT_INVENTORY
    place = os.path.relpath(file) if file.is_relative_to(Path.cwd()) else str(file)
    return sight_of_inventory(site, place, host, now)


def read_history(path: Path, inventory: Path | None = None, *, in_emergency: bool = False) -> History:
    """The history in this file, or the end of the command.

    Where an inventory is named, or stands beside the file, and has a ramp, what that has sent is a part of it. In an
    emergency an inventory that cannot be read is told, and ends nothing.
    """
    from dynpin.deploy.rotation.file import HistoryFile  # noqa: PLC0415 - it imports the middleware

    try:
        kept = HistoryFile(path).read()
    except FileNotFoundError:
        fail(_absent(path))
    except OSError as error:
        fail(f"{path}: {error.strerror or error}")
    except HistoryError as error:
        fail(str(error))
    try:
        return on_ramp(kept, _inventory_beside(inventory, path))
    except PolicyError as error:
        if not in_emergency:
            fail(str(error))
        say(f"dynpin: what a ramp has sent does not count below, since it cannot be read: {error}", err=True)
        return kept


def on_ramp(history: History, site: Inventory | None) -> History:
    """The history with what the ramp of the site has sent.

    Raises:
        PolicyError: where the position on the ramp cannot be read.
    """
    ramp = None if site is None else site.kept_ramp()
    return history if ramp is None else history.on_ramp(ramp.sent())


def change(path: Path, edit: Callable[[History], History], begin: History | None = None) -> History:
    """Change the history in this file under its lock; `begin` is the one to start from where there is none."""
    from dynpin.deploy.rotation.file import HistoryFile  # noqa: PLC0415 - it imports the middleware

    def edited(before: History | None) -> History:
        before = begin if before is None else before
        return fail(_absent(path)) if before is None else edit(before)

    try:
        return HistoryFile(path).change(edited)
    except OSError as error:
        fail(f"{path} cannot be written, and nothing is recorded: {error.strerror or error}")


def _absent(path: Path) -> str:
    return (
        f"{path} does not exist: begin it with dynpin rotate record --inventory FILE, or with --host NAME --header "
        "VALUE --chain FILE. If there was one, and it is lost: dynpin rotate repair"
    )


def nodes_seen(site: Inventory | None, url: str | None, host: str, ca: Path | None) -> list[Sight]:
    """What every address of a host, and every node that its inventory names, sends and shows now."""
    text = url or host
    asked, port, target = https_url(text if "://" in text else f"https://{text}")
    if asked != host:
        fail(f"{asked} is not the host of this history, which is {host}")
    from dynpin.deploy.nodes import look_at_node, nodes_of  # noqa: PLC0415 - the network, for --verify
    from dynpin.deploy.parallel import all_of  # noqa: PLC0415
    from dynpin.deploy.reach import CannotReach, tls_context  # noqa: PLC0415
    from dynpin.deploy.rotation.sights import sight_of_node  # noqa: PLC0415

    try:
        context = tls_context(ca, site)
        nodes = nodes_of(site, host, port)
    except CannotReach as error:
        fail(str(error))
    except OSError as error:
        return [Sight(host, None, (), is_live=True, failure=f"it has no address ({error.strerror or error})")]
    for node in nodes:
        say(f"looking at https://{host}{target} at {node}", err=True)
    looks = all_of([partial(look_at_node, host, port, address, context, path=target) for address, port in nodes])
    return list(map(sight_of_node, looks))


def key_of(text: str) -> Key:
    """A pin, or the key in a file, or the end of the command."""
    from dynpin.middleware.policy import Key, public_key  # noqa: PLC0415 - for plan and emergency

    try:
        return Key(text, Pin.from_base64(text))
    except ValueError:
        pass
    try:
        data = Path(text).read_bytes()
        return Key(text, Pin.from_bytes(data), Path(text), public_key(data))
    except (OSError, ValueError) as error:
        if isinstance(error, DynpinError):
            fail(f"{text}: {error}")
        fail(f"{text} is neither a pin nor a file: {reason_of(error)}")


def refuse_inside(backups: Sequence[Key], chains: Sequence[Chain], roots: Sequence[Path]) -> None:
    """End the command for a backup that stands in a chain: clients see the validated chain (RFC 7469 §2.5)."""
    from dynpin.middleware.policy import in_chain  # noqa: PLC0415 - for plan and record

    for backup in backups:
        reason = in_chain(backup, chains, roots)
        if reason is not None:
            fail(
                f"{backup.label} is no Backup Pin: {reason}. Clients ignore a header whose pins are all in the chain "
                "(RFC 7469 §2.5). Take a key that is deployed nowhere:  dynpin keys new HOST"
            )
