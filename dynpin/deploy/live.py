"""Look at a live site: every node, several responses, the chains, the report endpoint, the subdomains.

It only looks and enforces nothing; the linter judges. Independent requests run at the same time.
"""

from __future__ import annotations

import http.client
import secrets
import socket
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

from dynpin.clientstore.enforcement import verified_chain
from dynpin.middleware.policy import Node
from dynpin.pins import chain_pins

from .nodes import NodeLook, exchange, look_at_paths, look_over_http, why_silent
from .parallel import all_of

__all__ = ["Look", "Site", "look_at", "probes_of", "subdomain_chains"]


@dataclass(frozen=True, slots=True)
class Site:
    """What to look at, and how.

    Attributes:
        host: the name, in the certificate and in the request.
        port: the https port; `http_port` is that of plain http, or None to skip it.
        nodes: the addresses of the host.
        context: verifies the chains.
        path: the page that is requested first; `paths` are further ones.
        subdomains: names to look at besides those in the certificate.
        timeout: seconds to wait for each connection.
        by_dns: whether the nodes are from the DNS. If not, they were given, and the subdomains are looked for at these
            addresses too.
        dns_failure: why the DNS has no address of the host; empty if it has one, or was not asked.
        probes_report_uri: whether the report endpoint is probed.
    """

    host: str
    port: int
    nodes: tuple[Node, ...]
    context: ssl.SSLContext
    path: str = "/"
    paths: tuple[str, ...] = ("/favicon.ico",)
    http_port: int | None = None
    subdomains: tuple[str, ...] = ()
    timeout: float = 10.0
    by_dns: bool = True
    dns_failure: str = ""
    probes_report_uri: bool = True


@dataclass(frozen=True, slots=True)
class Look:
    """The answers of a site.

    Attributes:
        responses: the answers, node by node, those over plain http last.
        silent: the requests without an answer, each with the reason.
    """

    responses: tuple[NodeLook, ...]
    silent: tuple[NodeLook, ...]

    @property
    def secure(self) -> tuple[NodeLook, ...]:
        """The answers over TLS, verified or not."""
        return tuple(each for each in self.responses if each.scheme == "https")


def look_at(site: Site, say: Callable[[str], None]) -> Look:
    """Look at all nodes of a site.

    Args:
        site: the site.
        say: called with each step, to show progress.
    """
    # The page, a path that does not exist, and a usual static path: often these three are configured separately.
    paths = tuple(dict.fromkeys([site.path, f"/dynpin-check-{secrets.token_hex(6)}", *site.paths]))
    jobs: list[Callable[[], tuple[NodeLook, ...]]] = []
    for address, port in site.nodes:
        say(f"https://{site.host}:{port}{site.path} and {len(paths) - 1} other paths at {address}")
        jobs.append(partial(look_at_paths, site.host, port, address, site.context, paths, timeout=site.timeout))
    if site.http_port is not None and site.nodes:
        say(f"http://{site.host}:{site.http_port}{site.path}")
        jobs.append(partial(_plainly, site, site.http_port, site.nodes[0][0]))
    looks = [each for found in all_of(jobs) for each in found]
    return Look(
        tuple(each for each in looks if each.status is not None), tuple(each for each in looks if each.status is None)
    )


def _plainly(site: Site, port: int, address: str) -> tuple[NodeLook, ...]:
    return (look_over_http(site.host, port, address, path=site.path, timeout=site.timeout),)


def subdomain_chains(site: Site, names: Iterable[str], say: Callable[[str], None]) -> dict[str, tuple[str, ...]]:
    """The pins of each host's validated chain, leaf first. Hosts that cannot be reached are left out."""
    asked = tuple(names)
    for name in asked:
        say(f"subdomain {name}")
    found = all_of([partial(_chain_of, site, name) for name in asked])
    # A host that cannot be reached now cannot be locked out now.
    return {name: chain for name, chain in zip(asked, found, strict=True) if chain is not None}


def _chain_of(site: Site, name: str) -> tuple[str, ...] | None:
    address, port = (name, site.port) if site.by_dns else site.nodes[0]
    try:
        with (
            socket.create_connection((address, port), site.timeout) as plain,
            site.context.wrap_socket(plain, server_hostname=name) as tls,
        ):
            return tuple(str(pin) for pin in chain_pins(verified_chain(tls)))
    except OSError:
        return None


def probes_of(site: Site, uris: Iterable[str], say: Callable[[str], None]) -> dict[str, str]:
    """The answer of each report endpoint: an HTTP status, or the failure."""
    asked = tuple(dict.fromkeys(uris)) if site.probes_report_uri else ()
    for uri in asked:
        say(f"report endpoint {uri}")
    found = all_of([partial(_probe, site, uri) for uri in asked])
    return dict(zip(asked, found, strict=True))


def _probe(site: Site, uri: str) -> str:
    parts = urlsplit(uri)
    host = parts.hostname or ""
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        ask = partial(exchange, host=host, port=port, method="HEAD", path=parts.path or "/", timeout=site.timeout)
        with socket.create_connection((host, port), site.timeout) as plain:
            if parts.scheme == "http":
                return str(ask(plain)[0])
            with site.context.wrap_socket(plain, server_hostname=host) as tls:
                return str(ask(tls)[0])
    except (OSError, ValueError, http.client.HTTPException) as error:
        return why_silent(error)
