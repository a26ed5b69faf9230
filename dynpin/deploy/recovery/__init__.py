"""Recovery for operators: keys, the list of pins, its signatures, and the static files that clients read."""

from .completing import complete, refresh
from .expiry import LIFETIMES, Expiry, clock_fault, expiries
from .keys import OFFLINE, ONLINE, ROLES, open_to_others, read_signers
from .listing import differences, listed_by_entries, listed_by_inventory
from .published import PublishedList, list_faults, read_published
from .publishing import catch_up, compare, differing, publish, refuse_unpublished, strays
from .repository import Repository, create
from .signed_files import Refused, SignedFiles
from .storage import closed_folders
from .waiting import Pending

__all__ = [
    "LIFETIMES",
    "OFFLINE",
    "ONLINE",
    "ROLES",
    "Expiry",
    "Pending",
    "PublishedList",
    "Refused",
    "Repository",
    "SignedFiles",
    "catch_up",
    "clock_fault",
    "closed_folders",
    "compare",
    "complete",
    "create",
    "differences",
    "differing",
    "expiries",
    "list_faults",
    "listed_by_entries",
    "listed_by_inventory",
    "open_to_others",
    "publish",
    "read_published",
    "read_signers",
    "refresh",
    "refuse_unpublished",
    "strays",
]
