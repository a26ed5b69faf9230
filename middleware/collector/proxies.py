"""The client's address of a request. Only reverse proxies that the operator named may forward it."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, MutableMapping
from typing import Any, TypeAlias

from .addresses import address

__all__ = ["TrustedProxies"]

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
# More hops than any real request has. A client may send a field of any length.
_MAX_HOPS = 20
# The fields in which proxies say that they pass a request on, whether they are trusted or not.
_OF_CLIENT = frozenset({b"x-forwarded-for", b"x-forwarded-proto", b"x-real-ip", b"forwarded", b"via"})


class TrustedProxies:
    """The peers whose ``X-Forwarded-For``, ``X-Forwarded-Proto`` and user header are trusted.

    Args:
        names: networks such as ``10.0.0.0/8``, single addresses, and ``unix`` for peers on a Unix socket.

    Raises:
        ValueError: if a name is none of these; the message contains it.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._networks: list[Network] = []
        self._unix = False
        for name in names:
            if name == "unix":
                self._unix = True
                continue
            try:
                self._networks.append(_network(name))
            except ValueError:
                raise ValueError(
                    f"{name!r} is not a trusted proxy; name an address, a network such as 10.0.0.0/8 (no bits set "
                    "beyond its length), or unix"
                ) from None

    def __bool__(self) -> bool:
        return self._unix or bool(self._networks)

    def trusts(self, peer: str | None) -> bool:
        """Whether this peer is trusted. A peer on a Unix socket has no address."""
        if not peer:
            return self._unix
        if not self._networks:
            return False
        parsed = address(peer)
        return parsed is not None and any(parsed in network for network in self._networks)

    def client(self, peer: str | None, forwarded: Callable[[], str]) -> str | None:
        """The client's address: the peer, or the address that the last trusted proxy added.

        `forwarded` gives ``X-Forwarded-For``; it is called only if the peer is trusted.
        """
        if not self.trusts(peer):
            return peer
        # Each proxy appends its peer. Read from the end: what precedes the first untrusted address may be forged.
        for hop in reversed(forwarded().rsplit(",", _MAX_HOPS)[-_MAX_HOPS:]):
            named = _host(hop.strip())
            if not named:
                break
            peer = named
            if not self.trusts(named):
                break
        return peer

    @staticmethod
    def is_forwarded(headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether a believed scope came through a proxy that is not trusted, or that names no client."""
        return any(name in _OF_CLIENT for name, _ in headers)

    def believed(self, scope: MutableMapping[str, Any], user_header: str | None) -> MutableMapping[str, Any]:
        """An ASGI scope whose client, scheme and user header can be trusted."""
        client = scope.get("client")
        peer = client[0] if client else None
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        if not self.trusts(peer):
            unwanted = (user_header or "").lower().encode("latin-1", "replace")
            if not unwanted or all(name != unwanted for name, _ in headers):
                return scope
            return {**scope, "headers": [(name, value) for name, value in headers if name != unwanted]}

        def forwarded(field: bytes) -> str:
            return ",".join(value.decode("latin-1") for name, value in headers if name == field)

        changed: dict[str, Any] = {**scope}
        named = self.client(peer, lambda: forwarded(b"x-forwarded-for"))
        if named and named != peer:
            changed["client"] = (named, 0)
            # What they say of the client is used up.
            changed["headers"] = [(name, value) for name, value in headers if name not in _OF_CLIENT]
        scheme = forwarded(b"x-forwarded-proto").rpartition(",")[2].strip().lower()
        if scheme in ("http", "https"):
            changed["scheme"] = scheme
        return changed


def _network(name: str) -> Network:
    """A network; IPv4 in IPv6 (``::ffff:192.0.2.1``) becomes IPv4, as the address of a peer does."""
    found = ipaddress.ip_network(name)
    if isinstance(found, ipaddress.IPv6Network) and found.prefixlen >= 96:
        mapped = found.network_address.ipv4_mapped
        if mapped is not None:
            return ipaddress.IPv4Network((mapped, found.prefixlen - 96))
    return found


def _host(hop: str) -> str:
    """The address of a hop, without the port that some proxies add; empty if it is not an address."""
    if hop.startswith("["):
        hop = hop[1:].partition("]")[0]
    elif hop.count(":") == 1:
        hop = hop.partition(":")[0]
    return hop if address(hop) is not None else ""
