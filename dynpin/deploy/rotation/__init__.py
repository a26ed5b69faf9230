"""Rotation: what was served when, what clients may hold because of it, and what may be done next.

Nothing here reads a clock: the time comes in as an argument. Histories are values; `rotation.file` keeps one on disk.
"""

from dynpin.deploy.rotation.emergency import EMERGENCIES, Emergency, emergency
from dynpin.deploy.rotation.history import Deployed, Event, History, HistoryError, Planned, Published
from dynpin.deploy.rotation.machine import (
    Held,
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
from dynpin.deploy.rotation.seen import Missing, NotSeen, Sight, disagreements, done

__all__ = [
    "EMERGENCIES",
    "Deployed",
    "Emergency",
    "Event",
    "Held",
    "History",
    "HistoryError",
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
