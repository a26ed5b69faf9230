"""A site as its inventory describes it: what ``dynpin.toml`` says, read for the operator's tools."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from dynpin.header import PublicKeyPins
from dynpin.middleware.policy import read_inventory
from dynpin.middleware.policy.ramp import RampFile
from dynpin.pins import Pin

__all__ = ["SiteInventory", "read_site", "sent_on_ramp"]


@dataclass(frozen=True, slots=True)
class SiteInventory:
    """What an inventory and its key files say at one moment.

    Attributes:
        path: the ``dynpin.toml``.
        hosts: the names that the site answers.
        header: what the site is to send.
        chains: the pins of each deployed chain, leaf first.
        chain_files: the files that these were read from.
        backup_files: the files of the backup keys.
    """

    path: Path
    hosts: tuple[str, ...]
    header: PublicKeyPins
    chains: tuple[tuple[Pin, ...], ...]
    chain_files: tuple[Path, ...]
    backup_files: tuple[Path, ...]

    @property
    def pins(self) -> tuple[Pin, ...]:
        """The pins that the live header may hold, and must: those of the keys that the operator has."""
        return self.header.pins

    @property
    def chain(self) -> tuple[Pin, ...]:
        """The pins of all deployed chains."""
        return tuple(dict.fromkeys(pin for chain in self.chains for pin in chain))


def read_site(path: str | os.PathLike[str]) -> SiteInventory:
    """Read an inventory and the keys that it names.

    Raises:
        PolicyError: where the file is not understood, a key cannot be read, or the header would harm.
    """
    inventory = read_inventory(path)
    built = inventory.build()
    return SiteInventory(
        path=Path(path).absolute(),
        hosts=inventory.hosts,
        header=built.header,
        chains=tuple(tuple(pin for pin in chain.pins if pin is not None) for chain in built.chains),
        chain_files=tuple(chain.path for chain in built.chains if chain.path is not None),
        backup_files=tuple(key.path for key in built.backups if key.path is not None),
    )


def sent_on_ramp(path: str | os.PathLike[str]) -> tuple[tuple[int, int | None], ...]:
    """Since when which max-age the ramp of an inventory sent, oldest first; None is report-only.

    Raises:
        PolicyError: where the inventory, or the position on its ramp, cannot be read.
    """
    ramp = read_inventory(path).ramp
    return () if ramp is None else RampFile(ramp.state, ramp.token).sent()
