"""What a client adds: a persistent store of Known Pinned Hosts, and the one place that enforces them."""

from dynpin.clientstore.enforcement import Peer, Reporter
from dynpin.clientstore.reporting import Delivery, QueuedReport, ReportQueue
from dynpin.clientstore.store import PinStore
from dynpin.clientstore.tls import enforce, peer_of
from dynpin.clientstore.usage import Usage
from dynpin.clientstore.violations import pin_violation

__all__ = [
    "Delivery",
    "Peer",
    "PinStore",
    "QueuedReport",
    "ReportQueue",
    "Reporter",
    "Usage",
    "enforce",
    "peer_of",
    "pin_violation",
]
