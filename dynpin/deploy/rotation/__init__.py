"""Rotation: what was served when, what clients may hold because of it, and what may be done next.

Nothing here reads a clock or a file: histories are values, and the time comes in as an argument.
"""

from dynpin.deploy.rotation.emergency import EMERGENCIES, Emergency, emergency
from dynpin.deploy.rotation.history import Deployed, Event, History, Planned, Published
from dynpin.deploy.rotation.machine import (
    Held,
    Stage,
    Status,
    Step,
    advance,
    final_header,
    held,
    locked_out,
    plan,
    safe_at,
    status,
)

__all__ = [
    "EMERGENCIES",
    "Deployed",
    "Emergency",
    "Event",
    "Held",
    "History",
    "Planned",
    "Published",
    "Stage",
    "Status",
    "Step",
    "advance",
    "emergency",
    "final_header",
    "held",
    "locked_out",
    "plan",
    "safe_at",
    "status",
]
