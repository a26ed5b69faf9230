"""The port of the request that is being sent: an adapter sets it, and a violation report contains it."""

from __future__ import annotations

from contextvars import ContextVar

from dynpin.errors import InvalidHost
from dynpin.hosts import canonical_host

__all__ = ["port_of_request", "request_site"]

# Host and port of the request that is being sent. Behind CONNECT, and for an SSLObject, the peer's address is not the
# site's, so only an adapter knows the port. If no adapter has set it, the report says that the port is unknown.
request_site: ContextVar[tuple[str, int] | None] = ContextVar("dynpin_request_site", default=None)


def port_of_request(host: str) -> int | None:
    """The port of the request if it goes to this host; a proxy on the way has a handshake of its own."""
    site = request_site.get()
    try:
        return site[1] if site is not None and canonical_host(site[0]) == host else None
    except InvalidHost:
        return None
