"""Rotation: what was served when, what clients may hold because of it, and what may be done next.

Nothing here reads a clock: the time comes in as an argument. Histories are values; `rotation.file` keeps one on disk.
"""

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
]
