"""The ramp: a policy that begins in report-only and lets max-age grow while no client reports a violation.

:mod:`~dynpin.middleware.policy.steps` is the rule, values in and values out; the position on the ramp is kept in a
file that the processes of a server share, and a thread asks the collector of reports. No request waits for either.
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
