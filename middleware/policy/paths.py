"""The path from a server's certificate to a root, as clients validate it (RFC 7469 §2.6)."""

from __future__ import annotations

import contextlib
import importlib.util
import ssl
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path

from cryptography import x509

from dynpin.errors import PolicyError, UnpinnableKey
from dynpin.files import read_file
from dynpin.pins import Pin, certificates

from .issuance import der_of, is_issuer, is_self_signed, load_certificate
from .keys import Chain, pin_or_none

__all__ = [
    "certain_pins",
    "completing",
    "is_valid",
    "known_roots",
    "path_up",
    "readable",
    "trust_anchors",
    "upwards",
    "validated_path",
]


def trust_anchors(chain: Chain, roots: Sequence[Path] = ()) -> tuple[bytes, ...]:
    """The known roots that complete a chain, DER; if there are none, the last certificate of its path.

    Raises:
        PolicyError: if a file of `roots` cannot be read.
    """
    path = path_up(readable(chain))
    return tuple(map(der_of, completing(path, roots) or path[-1:])) or chain.certificates[-1:]


def certain_pins(chain: Chain, roots: Sequence[Path] = ()) -> tuple[Pin, ...]:
    """The pins that every client finds in the chain that it validates: the leaf, and its issuers in the file.

    A certificate that issued nothing in the chain is not in it, whatever its file has. A client that knows a root looks
    no further, and of several issuers it takes any: so what is above is not certain either.

    Raises:
        PolicyError: if a file of `roots` cannot be read.
    """
    served = readable(chain)
    if not served:
        return chain.pinnable[:1]
    found: list[Pin | None] = []
    level, left = [served[0]], [*served[1:]]
    while level and len(keys := {pin_or_none(der_of(each)) for each in level}) == 1:
        found += keys
        if any(is_self_signed(each) or _is_known(each, roots) for each in level):
            break
        if len({each.issuer for each in level}) > 1:  # cross-signed
            break
        level = [each for each in left if any(is_issuer(each, below) for below in level)]
        left = [each for each in left if each not in level]
    return tuple(pin for pin in found if pin is not None)


def validated_path(chain: Chain, roots: Sequence[Path] = ()) -> tuple[Pin, ...]:
    """The pins that a client may find in the chain that it validates: leaf, issuers, and their roots.

    Raises:
        PolicyError: if a file of `roots` cannot be read.
    """
    served = readable(chain)
    if not served:
        return chain.pinnable
    path = upwards(served)
    found = [pin_or_none(der_of(each)) for each in (*path, *completing(path, roots))]
    return tuple(dict.fromkeys(pin for pin in found if pin is not None))


# -- certificates -----------------------------------------------------------------------------------------------------


def readable(chain: Chain) -> tuple[x509.Certificate, ...]:
    """The readable certificates; none if the leaf is not readable, so that no other is used as the leaf."""
    if not chain.certificates or load_certificate(chain.certificates[0]) is None:
        return ()
    return tuple(each for der in chain.certificates if (each := load_certificate(der)) is not None)


def path_up(chain: Sequence[x509.Certificate]) -> list[x509.Certificate]:
    """The leaf, its issuer, and so on up."""
    path = [*chain[:1]]
    left = list(chain[1:])
    while left:
        above = next((each for each in left if is_issuer(each, path[-1])), None)
        if above is None:
            break
        path.append(above)
        left.remove(above)
    return path


def upwards(chain: Sequence[x509.Certificate]) -> list[x509.Certificate]:
    """The leaf and every certificate that issued one of these: clients may take any path among them."""
    found = [*chain[:1]]
    for each in found:  # it grows
        found += [above for above in chain if above not in found and is_issuer(above, each)]
    return found


def is_valid(certificate: x509.Certificate, at: datetime) -> bool:
    """Whether a certificate is valid at a time."""
    return certificate.not_valid_before_utc <= at <= certificate.not_valid_after_utc


def completing(
    served: Sequence[x509.Certificate], roots: Sequence[Path], at: datetime | None = None
) -> list[x509.Certificate]:
    """The known roots, and their own issuers, that complete the served certificates; at a time, the valid ones."""
    known = known_roots(tuple(roots))
    found: list[x509.Certificate] = []
    waiting = list(served)
    while waiting:
        each = waiting.pop()
        name = each.issuer.public_bytes()
        for der in known:
            if name not in der:  # a quick test, so that most roots are not decoded
                continue
            root = load_certificate(der)
            if root is None or (at is not None and not is_valid(root, at)):
                continue
            if root not in found and root != each and is_issuer(root, each):
                found.append(root)
                waiting.append(root)
    return found


def _is_known(certificate: x509.Certificate, roots: Sequence[Path]) -> bool:
    """Whether a client may know this CA as a root: by another certificate too, of the same name and key."""
    name, pin = certificate.subject.public_bytes(), pin_or_none(der_of(certificate))
    known = [root for der in known_roots(tuple(roots)) if name in der and (root := load_certificate(der)) is not None]
    return any(root.subject == certificate.subject and pin_or_none(der_of(root)) == pin for root in known)


def known_roots(files: tuple[Path, ...]) -> tuple[bytes, ...]:
    """The roots of the system, of certifi and of these files, DER.

    Raises:
        PolicyError: if a file cannot be read.
    """
    found = dict.fromkeys(_roots_of_the_system(ssl.get_default_verify_paths()))
    for file in files:
        try:
            roots = certificates(read_file(file))
        except (OSError, ValueError, UnpinnableKey) as error:
            why = (error.strerror if isinstance(error, OSError) else None) or error
            raise PolicyError(f"{file}, which roots names, holds no roots that can be read ({why})") from None
        if not roots:
            raise PolicyError(f"{file}, which roots names, holds a key, not a root certificate")
        found |= dict.fromkeys(roots)
    return tuple(found)


@lru_cache(maxsize=2)
def _roots_of_the_system(paths: ssl.DefaultVerifyPaths) -> tuple[bytes, ...]:
    found: dict[bytes, None] = dict.fromkeys(ssl.create_default_context().get_ca_certs(binary_form=True))
    # Debian has its roots in a folder. OpenSSL reads one when a chain needs it; file names are hashes of the subject.
    files = sorted(Path(paths.capath).glob("[0-9a-f]" * 8 + ".[0-9]*")) if paths.capath else []
    if importlib.util.find_spec("certifi") is not None:
        import certifi  # noqa: PLC0415 - it may not be installed

        files.append(Path(certifi.where()))
    for file in files:
        with contextlib.suppress(OSError, UnpinnableKey):  # not a file of the operator
            found |= dict.fromkeys(certificates(read_file(file)))
    return tuple(found)
