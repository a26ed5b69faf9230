"""The guards on ssl's classes, and the one decision behind them."""

from .chains import unverified_chain, verified_chain
from .contexts import guard, is_enforced
from .decision import Enforcement, Handshake, OnMismatch, Peer, PrivateRoots, Proof
from .explain import Explanation, explain_violation
from .guards import ObjectGuard, SocketGuard, peer_of
from .protocols import Healer, Pins, Reporter
from .roots import refuse_bundle, refuse_certificate, refuse_setting, same_roots
from .site import request_site
from .violations import pin_violation

__all__ = [
    "Enforcement",
    "Explanation",
    "Handshake",
    "Healer",
    "ObjectGuard",
    "OnMismatch",
    "Peer",
    "Pins",
    "PrivateRoots",
    "Proof",
    "Reporter",
    "SocketGuard",
    "explain_violation",
    "guard",
    "is_enforced",
    "peer_of",
    "pin_violation",
    "refuse_bundle",
    "refuse_certificate",
    "refuse_setting",
    "request_site",
    "same_roots",
    "unverified_chain",
    "verified_chain",
]
