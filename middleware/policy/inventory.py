"""The inventory of a site: its keys and its policy."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from dynpin.errors import InvalidHeader, PolicyError
from dynpin.header import PublicKeyPins
from dynpin.pins import Pin
from dynpin.recovery import Recovery

from .host_names import name_of_site
from .keys import Chain, Key, KeySource, path_of, read_chain, read_key
from .paths import certain_pins
from .rules import (
    Mode,
    OptionNames,
    Pinned,
    backup_pins,
    check_chains,
    check_mode,
    check_report_uri,
    max_age_of,
    pins_of,
)
from .steps import Ramp, header_at

if TYPE_CHECKING:
    from .ramp import KeptRamp
    from .shared import SharedState, StateSource

__all__ = ["Built", "Inventory"]


@dataclass(frozen=True, slots=True)
class Built:
    """The result of an inventory and its files.

    Attributes:
        inventory: the inventory.
        header: the header; if there is a ramp, with the max-age of its position.
        chains: the deployed chains.
        shown: for each of them the pins that every client finds in it, leaf first: :func:`.certain_pins`.
        backups: the backup keys.
        warnings: faults that do not stop the policy; one sentence each.
    """

    inventory: Inventory
    header: PublicKeyPins
    chains: tuple[Chain, ...]
    shown: tuple[tuple[Pin, ...], ...]
    backups: tuple[Key, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """A site's keys, and what its clients must pin. Attributes that are not listed here are arguments of ``Policy``.

    Attributes:
        path: the ``dynpin.toml``, or None if the policy was made in code.
        options: the names of the options in messages.
        nodes: the nodes behind a balancer, as ``"10.0.0.5:443"``.
        ramp: the ramp up to this policy, or None.
        remember: the file that keeps the last header, or None.
        state: the state that the nodes share at the collector; None if each node has its own files.
    """

    keys: tuple[KeySource, ...]
    backups: tuple[KeySource, ...] = ()
    max_age: timedelta | int | None = None
    include_subdomains: bool = False
    report_uri: str | None = None
    recovery: Recovery | None = None
    mode: Mode = "enforce"
    pinned: Pinned = "leaf"
    hosts: tuple[str, ...] = ()
    roots: tuple[Path, ...] = ()
    allow_long_max_age: bool = False
    path: Path | None = None
    options: OptionNames = field(default_factory=OptionNames)
    nodes: tuple[str, ...] = ()
    ramp: Ramp | None = None
    remember: Path | None = None
    state: StateSource | None = None

    @property
    def host(self) -> str | None:
        """The name of the site; None if it has only wildcards and addresses."""
        return name_of_site(self.hosts)

    @property
    def label(self) -> str:
        """What messages call the site: its name; else its first host. One from `dynpin.toml` has at least one."""
        return self.host or self.hosts[0]

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files that the header is made from."""
        sources = (path_of(source) for source in (*self.keys, *self.backups))
        ramp = None if self.ramp is None else self.ramp.state
        files = (self.path, *sources, *self.roots, ramp if self.state is None else self.state.copy)
        return tuple(path for path in files if path is not None)

    def read_chains(self) -> tuple[Chain, ...]:
        """Read the deployed chains.

        Raises:
            PolicyError: if a file cannot be read or holds no key.
        """
        return tuple(read_chain(source, f"keys[{number}]") for number, source in enumerate(self.keys))

    def read_backups(self) -> tuple[Key, ...]:
        """Read the backup keys.

        Raises:
            PolicyError: if a file cannot be read or holds no key.
        """
        return tuple(read_key(source, f"backups[{number}]") for number, source in enumerate(self.backups))

    def build(self, now: float | None = None) -> Built:
        """Read the files and make the header.

        Args:
            now: the time for the check of the certificates, in seconds since the epoch, UTC; None for now.

        Raises:
            PolicyError: if the header would lock users out, protect nobody, or could not be sent. The message names
                the file.
        """
        try:
            return self._build(time.time() if now is None else now)
        except PolicyError as error:
            if self.path is None:
                raise
            raise PolicyError(f"{self.path}: {error}") from None

    def _build(self, now: float) -> Built:
        options = self.options
        check_mode(self.mode, self.report_uri, options)
        max_age = max_age_of(self.max_age, self.mode, options, allow_long=self.allow_long_max_age)
        chains, backups = self.read_chains(), self.read_backups()
        pins = [pin for chain in chains for pin in pins_of(chain, self.pinned, options, self.roots)]
        # RFC 7469 §2.5: clients note only a header with a pin in the chain and one outside it.
        if not pins:
            files = options.setting("keys", '["tls/fullchain.pem"]', "'tls/fullchain.pem'")
            raise PolicyError(
                "the header would have no pin of the deployed chain, so clients ignore it (RFC 7469 §2.5). Name "
                f"the chain file that the server shows, such as {files}"
            )
        warnings = check_chains(chains, self.hosts, now, options)
        reserve = [backup.pin for backup in backups]
        # Unpinning needs no Backup Pin. If there is one, send it too, since some clients want it.
        if self.mode != "unpin":
            reserve, more = backup_pins(chains, backups, self.roots, options)
            warnings += more
        try:
            header = PublicKeyPins(
                pins=(*pins, *reserve),
                max_age=max_age,
                include_subdomains=self.include_subdomains,
                report_uri=None if self.mode == "unpin" else self.report_uri,
                report_only=self.mode == "report-only",
                recovery=self.recovery if self.mode == "enforce" else None,
            )
        except InvalidHeader as error:
            raise PolicyError(f"clients would not accept the header: {error}") from None
        if header.report_uri is not None:
            check_report_uri(header.report_uri, chains, self.hosts, options, include_subdomains=self.include_subdomains)
        shown = tuple(certain_pins(chain, self.roots) for chain in chains)
        return Built(self, self._on_ramp(header), chains, shown, backups, tuple(warnings))

    def _on_ramp(self, header: PublicKeyPins) -> PublicKeyPins:
        if self.ramp is None or not self.ramp.is_on:
            return header
        kept = self.kept_ramp()
        position = (None if kept is None else kept.read()) or self.ramp.begin(0)
        return header_at(header, position.max_age)

    def kept_ramp(self, state: SharedState | None = None) -> KeptRamp | None:
        """The stored position on the ramp; None if there is no ramp.

        Args:
            state: the shared state of the nodes, if the caller has it already.
        """
        if self.ramp is None:
            return None
        if self.state is None:
            from .ramp import RampFile  # noqa: PLC0415 - only a ramp needs SQLite

            return RampFile(self.ramp.state, self.ramp.token)
        from .shared import SharedRamp, SharedState  # noqa: PLC0415 - only a shared state needs it

        return SharedRamp(state or SharedState(self.state), self.ramp.token)

    def own_keys(self) -> dict[Pin, str]:
        """The site's own keys, pin to name: the leaf key of each deployed chain, and the backup keys. Reads the files.

        Raises:
            PolicyError: if a file cannot be read or holds no key.
        """
        return {backup.pin: self._named(backup.label, "backup") for backup in self.read_backups()} | {
            chain.pins[0]: self._named(chain.label, "deployed")
            for chain in self.read_chains()
            if chain.pins[0] is not None
        }

    def _named(self, label: str, role: str) -> str:
        folder = None if self.path is None else self.path.parent
        return f"{os.path.relpath(label, folder) if folder and Path(label).is_absolute() else label} ({role})"
