"""The keys of a site as its operator has them: files, PEM or DER in memory, or pins."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from dynpin.errors import PolicyError, UnpinnableKey
from dynpin.pins import Pin, certificates

__all__ = ["Chain", "KeySource", "located", "path_of", "read_chain", "read_pin"]

# A path (str or PathLike), the PEM or DER itself (bytes, or a str that holds PEM), or a pin that is known already.
KeySource = str | os.PathLike[str] | bytes | Pin


@dataclass(frozen=True, slots=True)
class Chain:
    """One deployed chain.

    Attributes:
        label: what to call it in a message: its file, or the argument that gave it.
        pins: the pin of each certificate, leaf first; None for one whose key cannot be pinned (§2.6). Of a bare key
            or pin, that one.
        names: the DNS names that the leaf is for, wildcards among them; None where no certificate tells.
    """

    label: str
    pins: tuple[Pin | None, ...]
    names: tuple[str, ...] | None


def located(sources: KeySource | Iterable[KeySource]) -> tuple[KeySource, ...]:
    """One source or several as a tuple, their paths absolute: a server may leave its working directory."""
    each = (sources,) if isinstance(sources, str | bytes | os.PathLike | Pin) else tuple(sources)
    return tuple(source if (path := path_of(source)) is None else path.absolute() for source in each)


def path_of(source: KeySource) -> Path | None:
    """The file behind a source, or None where it is the material itself."""
    if isinstance(source, os.PathLike) or (isinstance(source, str) and "-----BEGIN " not in source):
        return Path(source)
    return None


def read_pin(source: KeySource, label: str) -> tuple[str, Pin]:
    """The pin of a key, and what to call it: of a certificate, a public or private key, or a CSR.

    Args:
        source: the key.
        label: what to call it where it is no file.

    Raises:
        PolicyError: where the file cannot be read or holds nothing that can be pinned; the message names it.
    """
    if isinstance(source, Pin):
        return label, source
    label, data = _load(source, label)
    try:
        return label, Pin.from_bytes(data)
    except UnpinnableKey as error:
        raise PolicyError(f"{label}: {error}") from None


def read_chain(source: KeySource, label: str) -> Chain:
    """A deployed chain; `label` is what to call it where it is no file.

    Raises:
        PolicyError: where the file cannot be read or holds nothing that can be pinned; the message names it.
    """
    if isinstance(source, Pin):
        return Chain(label, (source,), None)
    label, data = _load(source, label)
    try:
        ders = certificates(data)
        leaf = Pin.from_certificate(ders[0]) if ders else Pin.from_bytes(data)
    except UnpinnableKey as error:
        raise PolicyError(f"{label}: {error}") from None
    return Chain(label, (leaf, *map(_pin_or_none, ders[1:])), _names(ders[0]) if ders else None)


def _load(source: str | os.PathLike[str] | bytes, label: str) -> tuple[str, bytes]:
    if isinstance(source, bytes):
        return label, source
    path = path_of(source)
    if path is None:
        return label, os.fspath(source).encode("utf-8", "replace")
    try:
        return str(path), path.read_bytes()
    except OSError as error:
        raise PolicyError(f"{path} cannot be read ({error.strerror or error}); {label} names it") from None
    except ValueError as error:
        raise PolicyError(f"{label} names no file: {error}") from None


def _pin_or_none(der: bytes) -> Pin | None:
    try:
        return Pin.from_certificate(der)
    except UnpinnableKey:
        return None


def _names(der: bytes) -> tuple[str, ...] | None:
    """The DNS names of a certificate (RFC 6125 §6.4: the common name counts for nothing)."""
    try:
        found = x509.load_der_x509_certificate(der).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return None
    return tuple(found.value.get_values_for_type(x509.DNSName))
