"""From key files and ``dynpin.toml`` to the header that a site sends (RFC 7469 §2.1, §4)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from dynpin.files import read_file

from .atomic import sync_folder, write_atomically
from .chains import (
    ChainFault,
    chain_faults,
    in_chain,
    unproven,
    without_root,
)
from .host_names import covers, is_address
from .inventory import Built, Inventory
from .issuance import load_certificate
from .keys import (
    CertificateNames,
    Chain,
    Key,
    KeySource,
    certificate_names,
    holds_private_key,
    path_of,
    public_key,
    read_chain,
    read_key,
)
from .node import Node
from .paths import certain_pins, trust_anchors, validated_path
from .policy import KeylessPolicyOptions, Policy, PolicyOptions
from .rules import LONGEST_MAX_AGE, Mode, Pinned
from .sent import recall
from .sources import PolicySource, policies_to_send

if TYPE_CHECKING:
    from .tables import Seconds, Table, read_tables

__all__ = [
    "LONGEST_MAX_AGE",
    "Built",
    "CertificateNames",
    "Chain",
    "ChainFault",
    "Inventory",
    "Key",
    "KeySource",
    "KeylessPolicyOptions",
    "Mode",
    "Node",
    "Pinned",
    "Policy",
    "PolicyOptions",
    "PolicySource",
    "Seconds",
    "Table",
    "certain_pins",
    "certificate_names",
    "chain_faults",
    "covers",
    "holds_private_key",
    "in_chain",
    "is_address",
    "load_certificate",
    "path_of",
    "policies_to_send",
    "public_key",
    "read_chain",
    "read_file",
    "read_inventory",
    "read_key",
    "read_tables",
    "recall",
    "sync_folder",
    "trust_anchors",
    "unproven",
    "validated_path",
    "without_root",
    "write_atomically",
]


def __getattr__(name: str) -> object:
    """Import the readers of TOML files only when they are used, since they need pydantic."""
    if name in ("Seconds", "Table", "read_tables"):
        from . import tables  # noqa: PLC0415

        return getattr(tables, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def read_inventory(path: str | os.PathLike[str]) -> Inventory:
    """Read a ``dynpin.toml``. Its paths are relative to its folder. The key files are not read.

    Raises:
        PolicyError: if it cannot be read, or a value is not valid; the message names file, key and fix.
    """
    from .toml import read_inventory as read  # noqa: PLC0415 - only a dynpin.toml needs pydantic

    return read(path)
