"""What a client adds: a persistent store of Known Pinned Hosts, and the one place that enforces them."""

from .enforcement import Peer, Reporter, peer_of, pin_violation
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
    "note_response",
    "note_response_async",
    "peer_of",
    "pin_violation",
]
