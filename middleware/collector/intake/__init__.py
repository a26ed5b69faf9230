"""The intake takes requests and gives answers. It is bounded, and has no state except its budgets."""

from .asgi import ASGIIntake
from .bodies import Understood, decoded, understood
from .commit import GroupCommit, Overloaded
from .intake import Admission, Answer, Intake, Taken, is_token
from .limits import SOURCE_ADDRESS, Ledger, Limits, Meter, SourceAddress, truncated
from .wsgi import WSGIIntake

__all__ = [
    "SOURCE_ADDRESS",
    "ASGIIntake",
    "Admission",
    "Answer",
    "GroupCommit",
    "Intake",
    "Ledger",
    "Limits",
    "Meter",
    "Overloaded",
    "SourceAddress",
    "Taken",
    "Understood",
    "WSGIIntake",
    "decoded",
    "is_token",
    "truncated",
    "understood",
]
