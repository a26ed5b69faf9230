"""The site of a `dynpin rotate` command: its history, its inventory, and the answers of its nodes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dynpin.cli.errors import fail, reason_of
from dynpin.cli.options import DEFAULT_INVENTORY
from dynpin.cli.printing import say
from dynpin.cli.urls import https_url
from dynpin.deploy.rotation import History, Missing, Sight, disagreements, unknown_steps
from dynpin.errors import DynpinError, PolicyError
from dynpin.pins import Pin
from dynpin.report import rfc3339

if TYPE_CHECKING:
    from dynpin.deploy.rotation.shared import KeptHistory
    from dynpin.middleware.policy import Chain, Inventory, Key
    from dynpin.middleware.policy.ramp import Ramp

__all__ = [
    "as_sent",
    "change",
    "differences",
    "earlier_history",
    "inventory_beside",
    "kept_at",
    "key_of",
    "nodes_seen",
    "read_history",
    "refuse_inside",
    "sights",
]

# A history in a file gives no PolicyError, so this is about a collector.
_WITHOUT_COLLECTOR = (
    ". This machine has no copy of a history either. To go on without the collector, take the line state out of [site] "
    "in dynpin.toml on every node, restart the servers, run dynpin rotate record, and then this command again"
)


def inventory_beside(inventory: Path | None, history: Path) -> Inventory | None:
    """The inventory that was named, or the one beside the history; None if there is none."""
    if inventory is None:
        inventory = history.parent / DEFAULT_INVENTORY
        if not inventory.is_file():
            return None
    from dynpin.middleware.policy import read_inventory  # noqa: PLC0415 - where there is one

    return read_inventory(inventory)


def read_history(path: Path, inventory: Path | None = None, *, in_emergency: bool = False) -> History:
    """Read the history of a site from this file, or from the shared state of its nodes; or end the command.

    If an inventory is named, or is beside the file, the history includes what its ramp and its nodes have sent. In an
    emergency an inventory that cannot be read is reported, but does not end the command.
    """
    from dynpin.deploy.rotation.file import HistoryFile  # noqa: PLC0415 - it imports the middleware

    try:
        site = inventory_beside(inventory, path)
    except PolicyError as error:
        if not in_emergency:
            raise
        say(f"dynpin: what nodes and a ramp have sent does not count below: {error}", err=True)
        return _read(HistoryFile(path))
    history = _read(kept_at(path, site), in_emergency=in_emergency)
    try:
        return as_sent(history, site)
    except PolicyError as error:
        if not in_emergency:
            raise
        say(f"dynpin: what a ramp has sent does not count below, since it cannot be read: {error}", err=True)
        return history


def kept_at(path: Path, site: Inventory | None) -> KeptHistory:
    """Where the history of a site is kept: in this file, or in the shared state of its nodes."""
    if site is None or site.state is None:
        from dynpin.deploy.rotation.file import HistoryFile  # noqa: PLC0415 - it imports the middleware

        return HistoryFile(path)
    from dynpin.deploy.rotation.shared import kept_history  # noqa: PLC0415 - for those who share a state

    return kept_history(path, site)


def _read(kept: KeptHistory, *, in_emergency: bool = False) -> History:
    try:
        return kept.read()
    except FileNotFoundError:
        fail(_absent(kept))
    except OSError as error:
        fail(reason_of(error, kept))
    except DynpinError as error:
        if not in_emergency:
            raise
        history = _copied(kept)
        if history is None:
            fail(f"{error}{_WITHOUT_COLLECTOR if isinstance(error, PolicyError) else ''}")
        say(f"dynpin: using what this machine saw last, since {error}", err=True)
        return history


def _copied(kept: KeptHistory) -> History | None:
    """The last known copy of a history that cannot be read now."""
    from dynpin.deploy.rotation.shared import SharedHistory  # noqa: PLC0415 - where something has failed

    try:
        return kept.copy() if isinstance(kept, SharedHistory) else None
    except DynpinError:
        return None


def as_sent(history: History, site: Inventory | None) -> History:
    """The history with the headers that the ramp and the nodes of the site have sent, as last known.

    Raises:
        PolicyError: if that cannot be read.
    """
    if site is not None and site.ramp is not None and (kept := site.kept_ramp()) is not None:
        history = _on_ramp(history, site.ramp, kept.sent())
    if site is None or site.state is None:
        return history
    from dynpin.deploy.rotation.shared import held_by_nodes  # noqa: PLC0415 - for those who share a state
    from dynpin.middleware.policy.shared import SharedState  # noqa: PLC0415

    return replace(history, sent_by_nodes=held_by_nodes(SharedState(site.state).copy()))


def _on_ramp(history: History, ramp: Ramp, sent: Sequence[tuple[float, int | None]]) -> History:
    """The history with what the ramp has sent, and what it may have sent before its file begins."""
    unknown = unknown_steps(history, ramp, sent, time.time())
    if unknown:
        until = f" before {rfc3339(sent[0][0])}" if sent else ""
        say(
            f"dynpin: it is unknown what the ramp sent{until} (was its state lost?). It counts as having moved up "
            "without a stop",
            err=True,
        )
    return history.on_ramp([*unknown, *sent])


def earlier_history(path: Path, site: Inventory | None) -> History | None:
    """The history in this file, from before the nodes shared one; None if there is no file.

    It has what the ramp of this machine has sent by then.
    """
    from dynpin.deploy.rotation.file import HistoryFile  # noqa: PLC0415 - it imports the middleware

    file = HistoryFile(path)
    if not file.exists():
        return None
    history = _read(file)
    if site is None or site.ramp is None:
        return history
    from dynpin.middleware.policy.ramp import RampFile  # noqa: PLC0415 - only a ramp needs SQLite

    try:
        return _on_ramp(history, site.ramp, RampFile(site.ramp.state, site.ramp.token).sent())
    except PolicyError as error:
        fail(f"what the ramp of this machine has sent is unknown: {error}; or move the file away, if it never was sent")


def change(kept: KeptHistory, edit: Callable[[History], History], begin: History | None = None) -> History:
    """Change a history while nobody else can; `begin` is the start if there is none."""

    def edited(before: History | None) -> History:
        before = begin if before is None else before
        return fail(_absent(kept)) if before is None else edit(before)

    try:
        return kept.change(edited)
    except OSError as error:
        fail(reason_of(error, f"{kept} cannot be written, and nothing is recorded"))
    except PolicyError as error:
        fail(f"nothing is recorded: {error}")


def _absent(kept: KeptHistory) -> str:
    return (
        f"{kept} does not exist: begin it with dynpin rotate record, in the folder of dynpin.toml or with --inventory "
        "FILE (without such a file: --host NAME --header VALUE --chain FILE). If there was one, and it is lost: dynpin "
        "rotate repair"
    )


def sights(site: Inventory, host: str, now: float) -> list[Sight]:
    """What an inventory makes, and what each node with the same shared state reports to send and show."""
    from dynpin.deploy.rotation.sights import sight_of_inventory  # noqa: PLC0415 - it reads keys

    file = site.path or DEFAULT_INVENTORY
    place = os.path.relpath(file) if file.is_relative_to(Path.cwd()) else str(file)
    found = [sight_of_inventory(site, place, host, now)]
    if site.state is None:
        return found
    from dynpin.deploy.rotation.shared import sights_of_nodes  # noqa: PLC0415 - for those who share a state
    from dynpin.middleware.policy.shared import SharedState  # noqa: PLC0415

    return [*found, *sights_of_nodes(SharedState(site.state).copy())]


def differences(history: History, site: Inventory | None, now: float) -> tuple[Missing, ...]:
    """How a history differs from the inventory, and from what the nodes report; nothing without an inventory."""
    seen = () if site is None else sights(site, history.host, now)
    return tuple(each for place in seen for each in disagreements(history, place, now))


def nodes_seen(site: Inventory | None, url: str | None, host: str, ca: Path | None) -> list[Sight]:
    """What every address of a host, and every node in its inventory, sends and shows now."""
    text = url or host
    asked, port, target = https_url(text if "://" in text else f"https://{text}")
    if asked != host:
        fail(f"{asked} is not the host of this history, which is {host}: name the history of that site with --history")
    from dynpin.deploy.nodes import look_at_node, nodes_of  # noqa: PLC0415 - the network, for --verify
    from dynpin.deploy.parallel import all_of  # noqa: PLC0415
    from dynpin.deploy.reach import tls_context  # noqa: PLC0415
    from dynpin.deploy.rotation.sights import sight_of_node  # noqa: PLC0415

    context = tls_context(ca, site)
    try:
        nodes = nodes_of(site, host, port)
    except OSError as error:
        return [Sight(host, None, (), is_live=True, failure=f"it has no address ({error.strerror or error})")]
    for node in nodes:
        say(f"looking at https://{host}{'' if port == 443 else f':{port}'}{target} at {node}", err=True)
    looks = all_of([partial(look_at_node, host, port, address, context, path=target) for address, port in nodes])
    return list(map(sight_of_node, looks))


def key_of(text: str) -> Key:
    """A pin, or the key in a file, or the end of the command."""
    from dynpin.middleware.policy import Key, read_file, read_key  # noqa: PLC0415 - for plan and emergency

    try:
        return Key(text, Pin.from_base64(text))
    except ValueError:
        pass
    try:
        data = read_file(Path(text))
    except (OSError, ValueError) as error:
        fail(f"{text} is neither a pin nor a file: {reason_of(error)}")
    return replace(read_key(data, text), path=Path(text))


def refuse_inside(backups: Sequence[Key], chains: Sequence[Chain], roots: Sequence[Path]) -> None:
    """End the command if a backup is in a chain: clients see the validated chain (RFC 7469 §2.5)."""
    from dynpin.middleware.policy import in_chain  # noqa: PLC0415 - for plan and record

    for backup in backups:
        reason = in_chain(backup, chains, roots)
        if reason is not None:
            fail(
                f"{backup.label} is not a Backup Pin: {reason}. Clients ignore a header whose pins are all in the "
                "chain (RFC 7469 §2.5). Take a key that is not deployed:  dynpin keys new HOST"
            )
