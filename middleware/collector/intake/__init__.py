"""The intake: a request in, an answer out. Stateless but for its budgets, and bounded."""

from .asgi import ASGIIntake
from .commit import GroupCommit, Overloaded
from .intake import Admission, Answer, Intake, Taken
from .limits import Ledger, Limits, Meter, truncated
from .reading import Understood, decoded, understood, understood_alone
from .wsgi import WSGIIntake

__all__ = [
    "ASGIIntake",
    "Admission",
    "Answer",
    "GroupCommit",
    "Intake",
    "Ledger",
    "Limits",
    "Meter",
    "Overloaded",
    "Taken",
    "Understood",
    "WSGIIntake",
    "decoded",
    "truncated",
    "understood",
    "understood_alone",
]
