"""Check whether a chain can be deployed, and which keys it contains (RFC 7469 §2.5, §2.6).

Clients compare pins with the *validated* chain: the served certificates and a root that the client knows. So a key is
in the chain if it is the key of a served certificate, if it signed one, or if it is the key of a root that completes
the chain.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from cryptography import x509

from dynpin.pins import Pin

from .host_names import covers, is_address
from .issuance import (
    der_of,
    is_ca,
    is_issuer,
    is_self_signed,
    is_signed_by,
    load_certificate,
    misused,
    name_of,
    unusable,
)
from .keys import Chain, Key
from .paths import completing, is_valid, known_roots, path_up, readable, upwards

__all__ = [
    "ChainFault",
    "FaultCode",
    "chain_faults",
    "in_chain",
    "is_nameless",
    "unproven",
    "without_root",
]

FaultCode = Literal[
    "chain-out-of-order",
    "ca-certificate-as-leaf",
    "certificate-expired",
    "certificate-not-yet-valid",
    "certificate-of-another-host",
    "certificate-unreadable",
    "certificate-unusable",
    "self-signed-certificate",
]


@dataclass(frozen=True, slots=True)
class ChainFault:
    """A fault of a chain.

    Attributes:
        code: the kind of fault.
        message: the fault, the name of the file, and what to do.
        refused: True if clients would refuse the chain, so that it must not be deployed. False for a warning.
    """

    code: FaultCode
    message: str
    refused: bool


def chain_faults(
    chain: Chain, hosts: Sequence[str] = (), *, now: float, beside: Sequence[Chain] = ()
) -> tuple[ChainFault, ...]:
    """The faults of a chain that is, or will be, deployed. A bare key or pin has none.

    Args:
        chain: the chain, as the server sends it.
        hosts: the names of the site, also with wildcards; empty if they are unknown.
        now: seconds since the epoch, UTC.
        beside: the other chains of the site. Together they must cover all hosts.
    """
    loaded = readable(chain)
    if not loaded:
        return _unread(chain)
    found = [
        *_order_faults(chain.label, loaded),
        *_use_faults(chain.label, loaded),
        *_date_faults(chain.label, loaded, now),
        *_name_faults(chain, hosts, beside),
    ]
    leaf = loaded[0]
    issued = next((other for other in beside if (them := readable(other)) and not is_self_signed(them[0])), None)
    if is_self_signed(leaf) and issued is not None:
        found.append(
            ChainFault(
                "self-signed-certificate",
                f"the certificate of {chain.label} is self-signed, but a CA issued that of {issued.label}: clients "
                "that trust the CA refuse the self-signed one. Deploy the certificate that the CA issued for this key",
                refused=True,
            )
        )
    return tuple(found)


def _unread(chain: Chain) -> tuple[ChainFault, ...]:
    if not chain.certificates:
        return ()
    why = f"the certificate of {chain.label} is malformed, so dynpin cannot check its names, dates and issuer"
    advice = "Have the CA issue one that follows RFC 5280"
    return (ChainFault("certificate-unreadable", f"{why}. {advice}", refused=False),)


def without_root(chain: Chain, present: Sequence[Chain], roots: Sequence[Path] = (), *, now: float) -> str | None:
    """Why clients may not find a root for a new chain; None if there is no sign of that.

    An issuer that has expired, or is not valid yet, helps no client, and a known root like that neither.

    Args:
        chain: the new chain.
        present: the deployed chains. If no known root completes them, the new chain must lead to the same CA.
        roots: see :func:`in_chain`.
        now: seconds since the epoch, UTC.

    Raises:
        PolicyError: if a file of `roots` cannot be read.
    """
    at = datetime.fromtimestamp(now, UTC)
    loaded = readable(chain)
    served = (*loaded[:1], *(each for each in loaded[1:] if is_valid(each, at)))
    others = [each for each in map(readable, present) if each]
    if not served or not others or is_self_signed(served[0]):
        return None
    issuers = upwards(served)
    if completing(issuers, roots, at):
        return None
    is_known = completing(issuers, roots) or any(completing(upwards(each), roots, at) for each in others)
    if not is_known and any(_leads_to(path_up(each)[-1], issuers) for each in others):
        return None
    return (
        f"no root that is known here completes {chain.label}: the certificate of {name_of(path_up(served)[-1].issuer)} "
        "is missing, has expired or is not valid yet, and clients that lack it too refuse the chain. Deploy the full "
        "chain, with every intermediate; if your own CA issued it, name its root in roots"
    )


def _leads_to(end: x509.Certificate, path: Sequence[x509.Certificate]) -> bool:
    """Whether a path passes the CA with which another one ends, as far as this can be seen."""
    if is_self_signed(end):
        return any(each == end or is_issuer(end, each) for each in path)
    return any(each.issuer == end.issuer for each in path)


def _use_faults(label: str, chain: Sequence[x509.Certificate]) -> list[ChainFault]:
    """The faults that OpenSSL and other clients refuse for any name and date."""
    path = path_up(chain)
    found = [f"the certificate of {label} {why}" for why in unusable(path[0])]
    found += [f"a certificate of {label} {why}" for why in misused(path)]
    advice = "Have the CA issue a certificate for a TLS server, for the same key"
    return [ChainFault("certificate-unusable", f"{why}. {advice}", refused=True) for why in found]


def _order_faults(label: str, chain: Sequence[x509.Certificate]) -> list[ChainFault]:
    leaf = chain[0]
    issued = next((number for number, each in enumerate(chain[1:], 1) if is_issuer(leaf, each)), None)
    if issued is not None:
        why = f"the first certificate of {label} issued certificate {issued}: the file is in reverse order"
        return [ChainFault("chain-out-of-order", f"{why}. Put the server's own certificate first", refused=True)]
    is_alone = len(chain) == 1 and is_self_signed(leaf)
    if is_ca(leaf) and not is_alone:
        why = f"the first certificate of {label} is a CA certificate ({name_of(leaf.subject)}), not a server's"
        return [ChainFault("ca-certificate-as-leaf", f"{why}. Put the server's own certificate first", refused=True)]
    path = path_up(chain)
    if [id(each) for each in path] != [id(each) for each in chain]:
        why = f"the certificates of {label} are not in order: each must come before its issuer"
        advice = "Use the file from the CA, leaf first; some clients refuse another order (RFC 8446 §4.4.2)"
        return [ChainFault("chain-out-of-order", f"{why}. {advice}", refused=False)]
    return []


def _date_faults(label: str, chain: Sequence[x509.Certificate], now: float) -> list[ChainFault]:
    found: list[ChainFault] = []
    moment = datetime.fromtimestamp(now, UTC)
    for number, each in enumerate(chain):
        # Clients may find a path without an expired intermediate. There is none without the leaf.
        name = f"the certificate of {label}" if not number else f"certificate {number} of {label}"
        if moment > each.not_valid_after_utc:
            why = f"{name} expired on {each.not_valid_after_utc:%Y-%m-%d}"
            advice = "Renew it with the same key"
            found.append(ChainFault("certificate-expired", f"{why}. {advice}", refused=not number))
        elif moment < each.not_valid_before_utc:
            why = f"{name} is not valid before {each.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
            advice = "Wait until then, or check the clock of this machine"
            found.append(ChainFault("certificate-not-yet-valid", f"{why}. {advice}", refused=not number))
    return found


def _name_faults(chain: Chain, hosts: Sequence[str], beside: Sequence[Chain]) -> list[ChainFault]:
    """The hosts without a chain, and the chains without a host."""
    pinned = [host for host in hosts if not is_address(host)]
    if not pinned:
        return []
    own = chain.names or ()
    elsewhere = [name for other in beside for name in other.names or ()]
    bare = any(other.names is None and not other.certificates for other in beside)  # a bare key has no names
    missing = [host for host in pinned if not covers(own, host)]
    if len(missing) < len(pinned) and (bare or all(covers(elsewhere, host) for host in missing)):
        return []
    names = ", ".join(own) or "no DNS name at all"
    return [
        ChainFault(
            "certificate-of-another-host",
            f"the certificate of {chain.label} is for {names}, not for {', '.join(missing)}, which hosts names: "
            "clients refuse it. Deploy a certificate for these names, or correct hosts",
            refused=True,
        )
    ]


def is_nameless(chain: Chain) -> bool:
    """Whether the leaf has no DNS name. Clients then refuse it or, for an IP address, pin nothing (§2.3.3)."""
    if not chain.certificates or (leaf := load_certificate(chain.certificates[0])) is None:
        return False
    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return True
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return False  # OpenSSL may read what cryptography cannot
    return not found.value.get_values_for_type(x509.DNSName)


def in_chain(key: Key, chains: Iterable[Chain], roots: Sequence[Path] = ()) -> str | None:
    """Why a key cannot be a Backup Pin: where it is in a validated chain (RFC 7469 §2.5); None if it is in none.

    Args:
        key: the key for the Backup Pin.
        chains: the deployed chains.
        roots: files with further roots that clients know, in addition to those of the system and of certifi.

    Raises:
        PolicyError: if a file of `roots` cannot be read.
    """
    for chain in chains:
        for number, pin in enumerate(chain.pins):
            if pin == key.pin:
                return f"{key.label} is the key of certificate {number} of {chain.label}"
        served = readable(chain)
        for number, each in enumerate(served):
            if key.public_key is not None and is_signed_by(each, key.public_key):
                return f"{key.label} is the key that issued certificate {number} of {chain.label}"
        for root in completing(served, roots):
            if Pin.from_certificate(der_of(root)) == key.pin:
                return f"{key.label} is the key of {name_of(root.subject)}, a root of {chain.label}"
    return None


def unproven(backups: Sequence[Key], chains: Iterable[Chain], roots: Sequence[Path] = ()) -> str | None:
    """Why it is unknown whether one of these keys, which :func:`in_chain` finds in no chain, is a Backup Pin.

    None if one of them surely is: a key that is known, and not by its pin alone, issued no certificate of a chain.

    Raises:
        PolicyError: if a file of `roots` cannot be read.
    """
    if not backups or any(each.public_key is not None for each in backups):
        return None
    for chain in chains:
        last = path_up(readable(chain))[-1:]
        is_root = any(is_self_signed(each) or der_of(each) in known_roots(tuple(roots)) for each in last)
        if last and not is_root and not completing(last, roots):
            return (
                f"the pin {backups[0].pin} may be that of the root of {chain.label}, which is not known here. Then it "
                "is not a Backup Pin, and clients ignore the header. Name the root in roots, or the key's file in "
                "place of its pin"
            )
    return None
