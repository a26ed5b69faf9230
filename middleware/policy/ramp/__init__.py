"""The ramp: a policy begins with report-only, and max-age grows while no client reports a violation.

:mod:`~dynpin.middleware.policy.steps` has the rule, values in and values out. A file, shared by the processes of a
server, keeps the position. A thread asks the collector of reports. No request waits for either.
"""

from ..steps import Position, Ramp, Step, reported, shown, unheard
from .driver import Driver, driver
from .reports import ask, intake_refusal
from .state import KeptRamp, RampFile

__all__ = [
    "Driver",
    "KeptRamp",
    "Position",
    "Ramp",
    "RampFile",
    "Step",
    "ask",
    "driver",
    "intake_refusal",
    "reported",
    "shown",
    "unheard",
]
