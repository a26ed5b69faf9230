"""The list to sign, made from the sites' own files, and its changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tuf.api.metadata import Root  # pyright: ignore[reportPrivateImportUsage]

from dynpin.errors import RecoveryError
from dynpin.hosts import KnownPinnedHost, canonical_host, is_ip_literal
from dynpin.middleware.policy import Inventory
from dynpin.pin_list import ListedHost, PinList

from .keys import ROLES

__all__ = ["differences", "key_differences", "listed_by_entries", "listed_by_inventory"]


def listed_by_inventory(inventory: Inventory, now: float) -> dict[str, ListedHost]:
    """The list entries for the hosts of a ``dynpin.toml``: the pins of its header. Reads the files of the inventory.

    Raises:
        PolicyError: if its keys would make no header.
        RecoveryError: if it has no host without a wildcard.
    """
    header = inventory.build(now).header
    # A list has no wildcards: a client looks for the name that it has noted.
    names = [name for name in map(canonical_host, inventory.hosts) if "*" not in name and not is_ip_literal(name)]
    if not names:
        raise RecoveryError(
            f'{inventory.path} names no host of its own; a list goes by names: hosts = ["www.example.com"]'
        )
    pins = () if inventory.mode == "unpin" else header.pins
    return dict.fromkeys(names, ListedHost(pins, header.include_subdomains))


def listed_by_entries(entries: Iterable[KnownPinnedHost]) -> dict[str, ListedHost]:
    """The list entries for a table of pins, such as the output of ``dynpin hosts list --json``.

    Raises:
        RecoveryError: for a host that is pinned only to exact certificates, which a list cannot express.
    """
    listed: dict[str, ListedHost] = {}
    for entry in entries:
        if not entry.pins:
            raise RecoveryError(f"{entry.host} has no pin of a key; a list holds pins alone")
        listed[entry.host] = ListedHost(entry.pins, entry.include_subdomains)
    return listed


def differences(old: PinList | None, new: PinList) -> list[str]:
    """The changes in the new list, one line for each host and each pin."""
    before: Mapping[str, ListedHost] = {} if old is None else old.hosts
    lines: list[str] = []
    for name in sorted({*before, *new.hosts}):
        was, now = before.get(name), new.hosts.get(name)
        if was == now:
            continue
        if now is None:
            lines.append(f"- {name}: no longer in the list; clients keep what they have")
            continue
        if was is None or was.include_subdomains != now.include_subdomains or not now.pins:
            covers = "with its subdomains" if now.include_subdomains else "the host alone"
            lines.append(
                f"{'+' if was is None else '~'} {name}: {covers if now.pins else 'released, clients forget it'}"
            )
        earlier = () if was is None else was.pins
        lines += [f"  + {name} {pin}" for pin in now.pins if pin not in earlier]
        lines += [f"  - {name} {pin}" for pin in earlier if pin not in now.pins]
    return lines


def key_differences(old: Root, new: Root) -> list[str]:
    """The changes in a new root, one line for each role with other keys or another threshold."""
    lines: list[str] = []
    for role in ROLES:
        was, now = old.roles[role], new.roles[role]
        before, after = {*was.keyids}, {*now.keyids}
        if (before, was.threshold) == (after, now.threshold):
            continue
        lines.append(
            f"~ keys of {role}: {now.threshold} of {len(after)}, {len(after - before)} new, "
            f"{len(before - after)} gone; it was {was.threshold} of {len(before)}"
        )
    return lines or [f"~ version {new.version} of the root changes no keys"]
