"""How a site is reached: its nodes, and the roots that its chain is verified with."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from dynpin.errors import DynpinError, InvalidHost
from dynpin.hosts import canonical_host
from dynpin.middleware.policy import Inventory, Node

from .live import Site
from .nodes import nodes_of

__all__ = ["LIST_URI", "CannotReach", "LookOptions", "site_reached", "tls_context"]

# What stands for the recovery-uri where a folder may be named.
LIST_URI = "uri"


class CannotReach(DynpinError):
    """A site cannot be looked at; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class LookOptions:
    """What a person says of the way to a site.

    Attributes:
        ca: the roots to trust, and no others (PEM); None for those of the system and of the inventory.
        addresses: where to look instead of the addresses of the DNS, each with a port or without.
        paths: more paths to look at.
        http_port: where to look at plain http, or None.
        subdomains: more subdomains to look at.
        probes_report_uri: whether the report endpoint is asked for a sign of life.
        timeout: seconds to wait for each connection and each answer.
        signed_list: where the signed list is looked at: a published folder, or ``LIST_URI`` for the recovery-uri; None
            not to look.
    """

    ca: Path | None = None
    addresses: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    http_port: int | None = None
    subdomains: tuple[str, ...] = ()
    probes_report_uri: bool = True
    timeout: float = 10.0
    signed_list: str | None = None


def site_reached(host: str, port: int, path: str, inventory: Inventory | None, options: LookOptions) -> Site:
    """What to look at: the nodes of the inventory, and the addresses of the DNS or those that were named.

    Raises:
        CannotReach: if the host has no address, one that was named is none, or the roots cannot be read.
    """
    context = tls_context(options.ca, inventory)
    if options.addresses:
        named = () if inventory is None else inventory.nodes
        nodes = tuple(dict.fromkeys([*(_address(each, port) for each in options.addresses), *map(Node.parse, named)]))
    else:
        try:
            nodes = nodes_of(inventory, host, port)
        except OSError as error:
            raise CannotReach(
                f"{host} has no address that is known here: {error.strerror or error}. Is it spelt right, and is there "
                "a network? --address looks at one without asking the DNS"
            ) from None
    return Site(
        host,
        port,
        nodes,
        context,
        path,
        paths=("/favicon.ico", *options.paths),
        http_port=options.http_port,
        subdomains=options.subdomains,
        timeout=options.timeout,
        by_dns=not options.addresses,
        probes_report_uri=options.probes_report_uri,
    )


def _address(text: str, port: int) -> Node:
    """An address as a person names it, with a port or without."""
    try:
        node = Node.parse(text)
    except ValueError:
        node = Node(text, port)
    try:
        return Node(canonical_host(node.address).strip("[]"), node.port)
    except InvalidHost:
        raise CannotReach(
            f"{text} is not an address: write 10.0.0.5, [2001:db8::5] or a name, with :PORT where that is not {port}"
        ) from None


def tls_context(ca: Path | None, inventory: Inventory | None = None) -> ssl.SSLContext:
    """What verifies the chains of a site.

    Args:
        ca: the roots to trust, and no others (PEM); None for those of the system and of the inventory.
        inventory: what the site says, or None.

    Raises:
        CannotReach: if the roots cannot be read; the message names the file.
    """
    return _context(ca, () if ca is not None or inventory is None else inventory.roots)


# Thousands of sites have the same roots, and reading those of the system takes longer than a look.
@lru_cache(maxsize=64)
def _context(ca: Path | None, roots: tuple[Path, ...]) -> ssl.SSLContext:
    file = ca
    try:
        context = ssl.create_default_context(cafile=ca)
        for file in roots:
            context.load_verify_locations(file)
    except ssl.SSLError:
        raise CannotReach(f"{file} holds no roots that can be read: name a file of root certificates in PEM") from None
    except OSError as error:
        raise CannotReach(f"{file}: {error.strerror or error}") from None
    return context
