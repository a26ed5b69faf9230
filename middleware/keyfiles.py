"""The keys of a site as its operator has them: files, PEM or DER in memory, or pins."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from dynpin.errors import PolicyError, UnpinnableKey
from dynpin.pins import Pin, chain_pins

__all__ = ["Chain", "KeySource", "path_of", "read_chain", "read_pin", "several"]

# A path (str or PathLike), the PEM or DER itself (bytes, or a str that holds PEM), or a pin that is known already.
KeySource = str | os.PathLike[str] | bytes | Pin

_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Chain:
    """A deployed chain: its pins, leaf first, and the host names that the leaf vouches for."""

    pins: tuple[Pin, ...]
    names: tuple[str, ...]


def several(sources: KeySource | Sequence[KeySource]) -> tuple[KeySource, ...]:
    """One source or many, as many."""
    return (sources,) if isinstance(sources, str | bytes | os.PathLike | Pin) else tuple(sources)


def path_of(source: KeySource) -> Path | None:
    """The file behind a source, or None where it is the material itself."""
    if isinstance(source, os.PathLike) or (isinstance(source, str) and "-----BEGIN " not in source):
        return Path(source)
    return None


def read_pin(source: KeySource) -> Pin:
    """The pin of a key: a certificate, a public or private key, or a CSR.

    Raises:
        PolicyError: where the file cannot be read or holds nothing that can be pinned; the message names it.
    """
    if isinstance(source, Pin):
        return source
    data, name = _data(source)
    try:
        return Pin.from_bytes(data)
    except UnpinnableKey as error:
        raise PolicyError(f"{name}: {error}") from None


def read_chain(source: KeySource) -> Chain:
    """The pins and names of a deployed chain; of a bare key or pin, that one pin and no name.

    Raises:
        PolicyError: where the file cannot be read or holds nothing that can be pinned; the message names it.
    """
    if isinstance(source, Pin):
        return Chain((source,), ())
    data, name = _data(source)
    blocks = _CERTIFICATE.findall(data.decode("latin-1"))
    if not blocks:
        return Chain((read_pin(source),), ())
    # The leaf is read as every tool of this package reads it, so that a damaged file is refused in the same words.
    leaf = read_pin(source)
    try:
        ders = [ssl.PEM_cert_to_DER_cert(block) for block in blocks]
        names = _names(ders[0])
    except ValueError as error:
        raise PolicyError(f"{name}: a certificate of the chain is damaged: {error}") from None
    return Chain((leaf, *chain_pins(ders[1:])), names)


def _data(source: str | os.PathLike[str] | bytes) -> tuple[bytes, str]:
    path = path_of(source)
    if path is None:
        return (source.encode() if isinstance(source, str) else bytes(source)), "the key material given"  # type: ignore[arg-type] # path_of has taken what is PathLike
    try:
        return path.read_bytes(), str(path)
    except OSError as error:
        raise PolicyError(f"{path} cannot be read: {error.strerror or error}") from None


def _names(der: bytes) -> tuple[str, ...]:
    certificate = x509.load_der_x509_certificate(der)
    try:
        alternative = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return ()
    return tuple(name.lower() for name in alternative.value.get_values_for_type(x509.DNSName))
