"""Pin Validation of a chain (RFC 7469 §2.6)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from dynpin.hosts import KnownPinnedHost
from dynpin.pins import Pin

__all__ = ["Validation", "validate"]


@dataclass(frozen=True, slots=True)
class Validation:
    """The result of Pin Validation for one connection, and the reason.

    Attributes:
        ok: whether the connection may go on.
        host: the canonical host that was connected to.
        known_host: the entry that applied, or None if the host is not a Known Pinned Host.
        chain: the pins of the validated chain, leaf first.
        matched: the pin that was found in the chain, or None.
        reason: the decision, as text.
        section: the section of RFC 7469 with the rule.
    """

    ok: bool
    host: str
    known_host: KnownPinnedHost | None
    chain: tuple[Pin, ...]
    matched: Pin | None
    reason: str
    section: str = "2.6"


def validate(
    host: str,
    known: KnownPinnedHost | None,
    chain: Sequence[Pin],
    *,
    certificates: Sequence[bytes] = (),
    now: float | None = None,
) -> Validation:
    """Compare the pins of a *validated* chain with the entry that applies to the host (RFC 7469 §2.6).

    Args:
        host: the canonical host.
        known: the entry that applies (:func:`dynpin.hosts.applicable`), or None.
        chain: the pins of the chain that the client built and verified, without other certificates that the server
            sent. Empty if the chain was not verified: this fails for a known host.
        certificates: the certificates of that chain, DER; needed for static entries with certificates.
        now: seconds since the epoch, UTC; needed for static entries that refuse after their expiry.
    """
    pins = tuple(chain)
    # §2.3.3: Pin Validation ignores an entry that has expired.
    if known is None or (now is not None and known.is_released(now)):
        return Validation(True, host, None, pins, None, f"{host} is not a Known Pinned Host", "2.3.3")
    if now is not None and known.is_expired(now):
        reason = f"the static pins of {known.host} have expired, and they were set to refuse from then on"
        return Validation(False, host, known, pins, None, reason, "2.7")
    wanted = frozenset(known.pins)
    matched = next((pin for pin in pins if pin in wanted), None)
    if matched is not None:
        return Validation(True, host, known, pins, matched, f"the chain of {host} holds the pinned key {matched}")
    if known.certificates and any(hashlib.sha256(der).digest() in known.certificates for der in certificates):
        return Validation(True, host, known, pins, None, f"the chain of {host} holds a pinned certificate", "2.7")
    if not pins:
        reason = f"{host} is pinned, and this connection has no verified chain to hold against its pins"
    else:
        reason = f"{host} shows none of its pinned keys"
    return Validation(False, host, known, pins, None, reason)
