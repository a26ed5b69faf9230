"""Read the addresses of clients, and cut them to the network that counts as one source."""

from __future__ import annotations

import ipaddress
from typing import TypeAlias

__all__ = ["Address", "address", "network"]

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address


def address(text: str | None) -> Address | None:
    """The address of a client, from the text of a server or a proxy; None if it is not an address.

    A zone (``fe80::1%eth0``) is removed, and IPv4 in IPv6 (``::ffff:192.0.2.1``) becomes IPv4.
    """
    try:
        parsed = ipaddress.ip_address((text or "").partition("%")[0])
    except ValueError:
        return None
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        return parsed.ipv4_mapped
    return parsed


def network(text: str | None, ipv4: int, ipv6: int) -> str:
    """The network of a client's address, with so many bits of IPv4 or IPv6; empty if it is not an address."""
    parsed = address(text)
    if parsed is None:
        return ""
    bits = ipv4 if parsed.version == 4 else ipv6
    return str(parsed if bits == parsed.max_prefixlen else ipaddress.ip_network((parsed, bits), strict=False))
