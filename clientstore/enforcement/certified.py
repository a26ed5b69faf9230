"""The names in a certificate, for programs that switch the check of the name off and do it by themselves."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import cast

from dynpin.errors import InvalidHost
from dynpin.hosts import KnownPinnedHost, canonical_host

__all__ = ["certified_names", "hosts_named", "proves"]


def certified_names(certificate: Mapping[str, object]) -> tuple[str, ...]:
    """The DNS names in a certificate, or the common name where it has none; it is as ``getpeercert()`` gives it."""
    others = cast("Iterable[tuple[str, str]]", certificate.get("subjectAltName", ()))
    subject = cast("Iterable[Iterable[tuple[str, str]]]", certificate.get("subject", ()))
    names = [value for kind, value in others if kind == "DNS"] or [
        value for part in subject for kind, value in part if kind == "commonName"
    ]
    return tuple(name.lower().rstrip(".") for name in names)


def proves(name: str, host: str) -> bool:
    """Whether TLS takes a certificate with this name for the host's (RFC 6125 §6.4.3, as strict as OpenSSL)."""
    if not name.startswith("*."):
        return name == host
    return name.count(".") > 1 and "*" not in name[1:] and name[1:] == f".{host.partition('.')[2]}"


def hosts_named(names: Iterable[str], known: Callable[[], Iterable[KnownPinnedHost]]) -> Iterator[str]:
    """The hosts that somebody may take a certificate with these names for; of those with a wildcard the pinned ones."""
    for name in names:
        if "*" in name:
            # More than TLS takes: some match b*k.test and *.test as they stand.
            pattern = re.compile(re.escape(name).replace(r"\*", "[^.]*"))
            yield from (entry.host for entry in known() if pattern.fullmatch(entry.host))
        try:
            # Of a wildcard any name, for the superdomains that cover it.
            yield canonical_host(name.replace("*", "any"))
        except InvalidHost:
            continue  # nobody can ask for it
