"""From key files and ``dynpin.toml`` to the header that a site sends (RFC 7469 §2.1, §4)."""

from .atomic import write_atomically
from .inventory import Inventory, read_inventory
from .keys import Chain, KeySource, path_of, read_chain, read_pin
from .policy import Policy, PolicyOptions, PolicyTerms
from .rules import Built, Mode, Pinned
from .sources import PolicySource, given_policies

__all__ = [
    "Built",
    "Chain",
    "Inventory",
    "KeySource",
    "Mode",
    "Pinned",
    "Policy",
    "PolicyOptions",
    "PolicySource",
    "PolicyTerms",
    "given_policies",
    "path_of",
    "read_chain",
    "read_inventory",
    "read_pin",
    "write_atomically",
]
