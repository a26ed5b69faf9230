"""The store of Known Pinned Hosts, and the one database that it owns."""

from .advice import check_command, forget_command
from .bounds import Refusal, registrable_domain
from .check import Repair, check, repair
from .database import Database
from .last_seen import ClockJump
from .paths import IN_MEMORY, default_path
from .pinstore import PinStore
from .state import LookUp, State
from .table import Select, selecting

__all__ = [
    "IN_MEMORY",
    "ClockJump",
    "Database",
    "LookUp",
    "PinStore",
    "Refusal",
    "Repair",
    "Select",
    "State",
    "check",
    "check_command",
    "default_path",
    "forget_command",
    "registrable_domain",
    "repair",
    "selecting",
]
