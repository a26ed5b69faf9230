"""Recovery, the operator's side: keys, the list of pins, its signatures, and the static files that clients read."""

from .expiry import Expiry, expiries
from .keys import OFFLINE, ONLINE, ROLES, read_signers
from .listing import differences, listed_by_entries, listed_by_inventory
from .published import PublishedList, list_faults, read_published
from .repository import LIFETIMES, Pending, Repository, create

__all__ = [
    "LIFETIMES",
    "OFFLINE",
    "ONLINE",
    "ROLES",
    "Expiry",
    "Pending",
    "PublishedList",
    "Repository",
    "create",
    "differences",
    "expiries",
    "list_faults",
    "listed_by_entries",
    "listed_by_inventory",
    "read_published",
    "read_signers",
]
