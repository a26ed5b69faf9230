"""Which request is being sent: an adapter tells, and a violation report carries its port."""

from __future__ import annotations

from contextvars import ContextVar

from dynpin.errors import InvalidHost
from dynpin.hosts import canonical_host

__all__ = ["port_of_request", "request_site"]

# Host and port of the request that is being sent. Behind CONNECT, and for an SSLObject, the peer's address is not the
# site's, so only an adapter can tell; where none has, the report says that the port is unknown.
request_site: ContextVar[tuple[str, int] | None] = ContextVar("dynpin_request_site", default=None)


def port_of_request(host: str) -> int | None:
    """The port of the request, where it is this host's: on the way to a site a proxy has a handshake of its own."""
    site = request_site.get()
    try:
        return site[1] if site is not None and canonical_host(site[0]) == host else None
    except InvalidHost:
        return None
