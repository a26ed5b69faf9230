"""The names of a site and of its certificates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dynpin.errors import InvalidHost
from dynpin.hosts import canonical_host, is_ip_literal

__all__ = ["covers", "is_address", "name_of_site"]


def name_of_site(hosts: Sequence[str]) -> str | None:
    """The first host that is a name: no wildcard, and no address, which clients never pin (RFC 7469 §2.3.3)."""
    return next((host for host in hosts if "*" not in host and not is_address(host)), None)


def covers(names: Iterable[str], host: str) -> bool:
    """Whether a certificate for these DNS names covers the host (RFC 6125 §6.4.3: `*` matches one label)."""
    wanted = _canonical(host)
    parent = wanted.partition(".")[2]
    return any(name == wanted or (name.startswith("*.") and name[2:] == parent) for name in map(_canonical, names))


def is_address(host: str) -> bool:
    """Whether this is an IP address, which clients never pin (RFC 7469 §2.3.3)."""
    try:
        return is_ip_literal(canonical_host(host))
    except InvalidHost:
        return False


def _canonical(name: str) -> str:
    try:
        return canonical_host(name)
    except InvalidHost:
        return name.lower()
