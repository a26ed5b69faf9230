"""What a client adds: a persistent store of Known Pinned Hosts, and the one place that enforces them."""

from dynpin.clientstore.enforcement import Peer
from dynpin.clientstore.store import PinStore
from dynpin.clientstore.tls import enforce, peer_of

__all__ = ["Peer", "PinStore", "enforce", "peer_of"]
