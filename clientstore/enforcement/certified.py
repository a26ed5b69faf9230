"""The names in a certificate, for programs that switch off TLS's check of the name and do their own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import cast

from dynpin.errors import InvalidHost
from dynpin.hosts import KnownPinnedHost, canonical_host

__all__ = ["certified_names", "hosts_named", "proves"]


def certified_names(certificate: Mapping[str, object]) -> tuple[str, ...]:
    """The DNS names in a certificate in the form of ``getpeercert()``. If it has none: the common name."""
    others = cast("Iterable[tuple[str, str]]", certificate.get("subjectAltName", ()))
    subject = cast("Iterable[Iterable[tuple[str, str]]]", certificate.get("subject", ()))
    names = [value for kind, value in others if kind == "DNS"] or [
        value for part in subject for kind, value in part if kind == "commonName"
    ]
    return tuple(name.lower().rstrip(".") for name in names)


def proves(name: str, host: str) -> bool:
    """Whether TLS accepts a certificate with this name for the host (RFC 6125 §6.4.3, as strict as OpenSSL)."""
    if not name.startswith("*."):
        return name == host
    return name.count(".") > 1 and "*" not in name[1:] and name[1:] == f".{host.partition('.')[2]}"


def hosts_named(names: Iterable[str], known: Callable[[], Iterable[KnownPinnedHost]]) -> Iterator[str]:
    """The hosts for which a program may accept a certificate with these names; for a wildcard, the pinned ones."""
    for name in names:
        if "*" in name:
            # Wider than TLS: some programs also match b*k.test, and *.test as a literal name.
            pattern = re.compile(re.escape(name).replace(r"\*", "[^.]*"))
            yield from (entry.host for entry in known() if pattern.fullmatch(entry.host))
        try:
            # For a wildcard any name below it will do: it leads to the superdomains that cover it.
            yield canonical_host(name.replace("*", "any"))
        except InvalidHost:
            continue  # not a valid host name, so nobody can connect to it
