"""What a client adds: a persistent store of Known Pinned Hosts, and the one place that enforces them."""

from dynpin.clientstore.store import PinStore

__all__ = ["PinStore"]
