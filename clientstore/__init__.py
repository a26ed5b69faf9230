"""The client's side: a persistent store of Known Pinned Hosts, and the one place that enforces their pins."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .enforcement import Peer, Reporter, peer_of, pin_violation
    from .injection import inject
    from .options import PinOptions, enforce
    from .reports import Delivery, QueuedReport, ReportQueue
    from .responses import note_response, note_response_async
    from .store import PinStore

__all__ = [
    "Delivery",
    "Peer",
    "PinOptions",
    "PinStore",
    "QueuedReport",
    "ReportQueue",
    "Reporter",
    "enforce",
    "inject",
    "note_response",
    "note_response_async",
    "peer_of",
    "pin_violation",
]

# The subpackage of each public name, imported on first use (PEP 562), as in dynpin itself. Every Python that
# `dynpin run` starts imports `injection`, and most of them never connect.
_ROOMS = {
    "Delivery": "reports",
    "Peer": "enforcement",
    "PinOptions": "options",
    "PinStore": "store",
    "QueuedReport": "reports",
    "ReportQueue": "reports",
    "Reporter": "enforcement",
    "enforce": "options",
    "inject": "injection",
    "note_response": "responses",
    "note_response_async": "responses",
    "peer_of": "enforcement",
    "pin_violation": "enforcement",
}


def __getattr__(name: str) -> object:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f".{_ROOMS[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
