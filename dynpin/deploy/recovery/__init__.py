"""Recovery, the operator's side: keys, the list of pins, its signatures, and the static files that clients read."""

from .expiry import Expiry, expiries
from .keys import OFFLINE, ONLINE, ROLES, read_signers
from .listing import differences, listed_by_entries, listed_by_inventory
from .repository import LIFETIMES, Pending, Repository, create

__all__ = [
    "LIFETIMES",
    "OFFLINE",
    "ONLINE",
    "ROLES",
    "Expiry",
    "Pending",
    "Repository",
    "create",
    "differences",
    "expiries",
    "listed_by_entries",
    "listed_by_inventory",
    "read_signers",
]
