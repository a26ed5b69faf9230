"""The intake: a request in, an answer out. Stateless but for its budgets, and bounded."""

from .asgi import ASGIIntake
from .commit import GroupCommit, Overloaded
from .intake import Admission, Answer, Intake, Taken, is_token
from .limits import SOURCE_ADDRESS, Ledger, Limits, Meter, SourceAddress, truncated
from .reading import Understood, decoded, understood
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
