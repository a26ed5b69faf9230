"""How to reach a site: its nodes, and the roots that verify its chain."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from dynpin.errors import InvalidHost
from dynpin.hosts import canonical_host
from dynpin.middleware.policy import Inventory, Node

from .live import Site
from .nodes import nodes_of
from .trust import CannotReach, trusting

__all__ = ["LIST_URI", "CannotReach", "LookOptions", "site_reached", "tls_context"]

# Stands for the recovery-uri in a place where a folder may be named.
LIST_URI = "uri"


@dataclass(frozen=True, slots=True)
class LookOptions:
    """A person's options for reaching a site.

    Attributes:
        ca: the only roots to trust (PEM); None for those of the system and of the inventory.
        addresses: where to look instead of the addresses in the DNS, each with or without a port.
        paths: further paths to look at.
        http_port: the port for plain http, or None to skip it.
        subdomains: further subdomains to look at.
        probes_report_uri: whether the report endpoint is probed.
        timeout: seconds to wait for each connection and each answer.
        signed_list: where to read the signed list: a published folder, or ``LIST_URI`` for the recovery-uri; None to
            skip it.
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
    """What to look at: the nodes of the inventory, and the addresses in the DNS or those that were given.

    If the DNS has no address, the nodes of the inventory are looked at alone.

    Raises:
        CannotReach: if there is no address at all, if a given address is invalid, or if the roots cannot be read.
    """
    context = tls_context(options.ca, inventory)
    named = () if inventory is None else tuple(map(Node.parse, inventory.nodes))
    failure = ""
    if options.addresses:
        nodes = tuple(dict.fromkeys([*(_address(each, port) for each in options.addresses), *named]))
    else:
        try:
            nodes = nodes_of(inventory, host, port)
        except OSError as error:
            nodes, failure = tuple(dict.fromkeys(named)), str(error.strerror or error)
    if not nodes:
        raise CannotReach(
            f"{host} has no known address: {failure}. Is it spelt right, and is there a network? --address looks at "
            "one without asking the DNS"
        )
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
        by_dns=not options.addresses and not failure,
        dns_failure=failure,
        probes_report_uri=options.probes_report_uri,
    )


def _address(text: str, port: int) -> Node:
    """An address from a person, with or without a port."""
    try:
        node = Node.parse(text)
    except ValueError:
        node = Node(text, port)
    try:
        return Node(canonical_host(node.address).strip("[]"), node.port)
    except InvalidHost:
        raise CannotReach(
            f"{text} is not an address: write 10.0.0.5, [2001:db8::5] or a name, with :PORT if that is not {port}"
        ) from None


def tls_context(ca: Path | None, inventory: Inventory | None = None) -> ssl.SSLContext:
    """The context that verifies the chains of a site.

    Args:
        ca: the only roots to trust (PEM); None for those of the system and of the inventory.
        inventory: the site's inventory, or None.

    Raises:
        CannotReach: if the roots cannot be read; the message names the file.
    """
    return _trusting(ca, () if ca is not None or inventory is None else inventory.roots)


# Thousands of sites may have the same roots, and reading the system's takes longer than a look.
_trusting = lru_cache(maxsize=64)(trusting)
