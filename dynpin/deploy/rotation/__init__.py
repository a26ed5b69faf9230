"""Rotation: what was served when, which pins clients may hold because of it, and which step may come next.

Nothing here reads a clock: the time is an argument. Histories are values; `rotation.file` stores one on the disk.
"""

from .climbing import unknown_steps
from .emergency import EMERGENCIES, Emergency, emergency
from .history import Deployed, Event, Held, History, HistoryError, Listed, Planned, Published
from .machine import (
    Stage,
    Status,
    Step,
    advance,
    bridge_header,
    final_header,
    held,
    locked_out,
    old_pins,
    plan,
    safe_at,
    status,
)
from .seen import ListSight, Missing, NotSeen, Sight, disagreements, done

__all__ = [
    "EMERGENCIES",
    "Deployed",
    "Emergency",
    "Event",
    "Held",
    "History",
    "HistoryError",
    "ListSight",
    "Listed",
    "Missing",
    "NotSeen",
    "Planned",
    "Published",
    "Sight",
    "Stage",
    "Status",
    "Step",
    "advance",
    "bridge_header",
    "disagreements",
    "done",
    "emergency",
    "final_header",
    "held",
    "locked_out",
    "old_pins",
    "plan",
    "safe_at",
    "status",
    "unknown_steps",
]
