"""Canonical hosts, congruent and superdomain match (RFC 7469 §2.3.3, RFC 6797 §8.2 and §10)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import idna

from dynpin.errors import InvalidHost
from dynpin.pins import Pin
from dynpin.recovery import NotedRecovery

__all__ = ["KnownPinnedHost", "OnExpiry", "applicable", "canonical_host", "is_ip_literal", "superdomains"]

# RFC 3986 §3.2.2: reg-name without percent-encoding. Closed networks use underscores and doubled hyphens, so ASCII
# labels are not checked against the rules of IDNA.
_LABEL = re.compile(r"[a-z0-9_~!$&'()*+,;=-]{1,63}")
# A name that is canonical already, as nearly all are. It has a letter in its last label, so it is not an address.
_CANONICAL = re.compile(r"(?=.{1,253}\Z)(?:[a-z0-9_-]{1,63}\.)*(?=[0-9_-]*[a-z])[a-z0-9_-]{1,63}")
# RFC 3986 §3.2.2: IPv4address and IPv6address; a zone (RFC 4007 §11.2), in which ipaddress takes any character.
_LIKE_AN_ADDRESS = re.compile(r"[0-9A-Fa-f.:]+(?:%[0-9A-Za-z._~-]{1,64})?")
# IPvFuture, the other form of an IP-literal: "v" 1*HEXDIG "." 1*( unreserved / sub-delims / ":" )
_IP_FUTURE = re.compile(r"\[[Vv][0-9A-Fa-f]+\.[0-9A-Za-z._~!$&'()*+,;=:-]{1,100}\]")
# UTS 46 drops characters, so a name may be longer than 253 before it is mapped. But older releases of idna take
# quadratic time for long input, and anybody can write the host of a report.
_MAX_UNMAPPED = 1024

OnExpiry = Literal["release", "refuse"]


@dataclass(frozen=True, slots=True)
class KnownPinnedHost:
    """A Known Pinned Host with its Pinning Metadata (RFC 7469 §2.3.3, §2.5).

    Attributes:
        host: the canonical name that was noted.
        pins: the pins, in the order in which the header gave them.
        include_subdomains: whether the policy covers every subdomain.
        report_uri: the URI for violation reports, or None.
        noted_at: the Effective Pin Date, seconds since the epoch, UTC.
        expires_at: the Effective Expiration Date, seconds since the epoch, UTC; None never expires (static pins).
        source: ``"header"`` for pins noted from a response, ``"static"`` for preloaded ones (§2.7).
        certificates: SHA-256 digests of exact certificates, which match like pins. Only static entries have them, and
            each renewal breaks them.
        on_expiry: what happens when a static entry has expired: ``"release"`` as for every header, or ``"refuse"``,
            which locks the host until somebody renews the pins.
        origin: the file of the entry, for people; None if it came from no file.
        recovery: the recovery data of the host, or None. An entry without pins keeps only this: it is no longer a
            Known Pinned Host, but its root still holds (:mod:`dynpin.recovery`).
    """

    host: str
    pins: tuple[Pin, ...]
    include_subdomains: bool
    report_uri: str | None
    noted_at: float
    expires_at: float | None
    source: str = "header"
    certificates: tuple[bytes, ...] = ()
    on_expiry: OnExpiry = "release"
    origin: str | None = None
    recovery: NotedRecovery | None = None

    def is_expired(self, now: float) -> bool:
        """Whether the Effective Expiration Date is in the past at `now` (RFC 7469 §2.3.3)."""
        return self.expires_at is not None and self.expires_at < now

    def is_released(self, now: float) -> bool:
        """Whether the entry no longer pins: it has no pins left, or it has expired (§2.3.3)."""
        return not (self.pins or self.certificates) or (self.is_expired(now) and self.on_expiry == "release")

    @property
    def root_ends_at(self) -> float | None:
        """When the root of its recovery is forgotten, seconds since the epoch, UTC; None if never."""
        if self.recovery is None or self.recovery.until is None:
            return self.expires_at
        return self.recovery.until


def is_ip_literal(host: str) -> bool:
    """Whether the name is an IPv4address or IP-literal (RFC 3986 §3.2.2), which is never pinned (RFC 7469 §2.3.3).

    Octal, hexadecimal and short forms of an address count as names.
    """
    name = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not _LIKE_AN_ADDRESS.fullmatch(name):
        return _IP_FUTURE.fullmatch(host) is not None
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


@lru_cache(maxsize=4096)
def canonical_host(host: str) -> str:
    """The canonical form of a name, for comparison: lower case, A-labels, no trailing dot (RFC 6797 §10).

    ASCII labels are only lower-cased; other labels are mapped by `idna` (UTS 46).

    Raises:
        InvalidHost: if the name has no canonical form: it is empty, too long, or has invalid characters.
    """
    if _CANONICAL.fullmatch(host):
        return host
    name = host if host.isascii() else _to_ascii(host)
    name = name.lower().removesuffix(".")
    if is_ip_literal(name):
        return name
    labels = name.split(".")
    if not name or len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise InvalidHost(f"{host[:300]!r} is not a host name: pins are kept for DNS names (RFC 7469 §2.3.3)")
    return name


def _to_ascii(host: str) -> str:
    if len(host) > _MAX_UNMAPPED:
        raise InvalidHost(f"{host[:300]!r} is not a host name: it has {len(host)} characters")
    try:
        mapped = idna.uts46_remap(host, std3_rules=False, transitional=False)
        return ".".join(label if label.isascii() else idna.alabel(label).decode("ascii") for label in mapped.split("."))
    except (idna.IDNAError, UnicodeError) as error:
        raise InvalidHost(f"{host[:300]!r} cannot be written as an internationalised host name: {error}") from None


def superdomains(host: str) -> tuple[str, ...]:
    """All superdomains of a canonical host, nearest first, label by label.

    >>> superdomains("a.b.example.com")
    ('b.example.com', 'example.com', 'com')
    """
    # RFC 6797 §8.2: an address has no superdomain, even if there is a Known Pinned Host "7".
    if is_ip_literal(host):
        return ()
    labels = host.split(".")
    return tuple(".".join(labels[index:]) for index in range(1, len(labels)))


def applicable(entries: Iterable[KnownPinnedHost], host: str, now: float) -> KnownPinnedHost | None:
    """The entry that applies to a canonical host at `now`, or None.

    RFC 6797 §8.2: the congruent match, or else the nearest superdomain with includeSubDomains.
    RFC 7469 §2.3.3: expired entries are ignored, so a nearer expired entry hides no other.
    """
    alive = {entry.host: entry for entry in entries if not entry.is_released(now)}
    if not alive:  # most hosts
        return None
    own = alive.get(host)
    if own is not None:
        return own
    for name in superdomains(host):
        entry = alive.get(name)
        if entry is not None and entry.include_subdomains:
            return entry
    return None
