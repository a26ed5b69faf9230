"""The store of Known Pinned Hosts, and the one database that it owns."""

from .advice import check_command, forget_command
from .bounds import Refusal, registrable_domain
from .check import Repair, check, repair
from .database import Database
from .last_seen import ClockJump
from .lists import Look, ask, claim, list_expires_at, next_look_at
from .looking import NO_TUF, follow, look_at
from .numbers import whole_number
from .paths import IN_MEMORY, default_path
from .pinstore import PinStore
from .state import LookUp, State
from .table import Select, selecting

__all__ = [
    "IN_MEMORY",
    "NO_TUF",
    "ClockJump",
    "Database",
    "Look",
    "LookUp",
    "PinStore",
    "Refusal",
    "Repair",
    "Select",
    "State",
    "ask",
    "check",
    "check_command",
    "claim",
    "default_path",
    "follow",
    "forget_command",
    "list_expires_at",
    "look_at",
    "next_look_at",
    "registrable_domain",
    "repair",
    "selecting",
    "whole_number",
]
