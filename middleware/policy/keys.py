"""The keys of a site: files, PEM or DER in memory, or pins."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, cast

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    load_der_private_key,
    load_der_public_key,
    load_pem_private_key,
    load_pem_public_key,
)

from dynpin.errors import PolicyError, UnpinnableKey
from dynpin.files import read_file
from dynpin.pins import Pin, certificates, pins_without_certificate

from .issuance import is_ca, is_issuer, load_certificate

__all__ = [
    "CertificateNames",
    "Chain",
    "Key",
    "KeySource",
    "certificate_names",
    "holds_private_key",
    "located",
    "path_of",
    "pin_or_none",
    "public_key",
    "read_chain",
    "read_key",
    "several",
]

# A path (str or PathLike), PEM or DER (bytes, or a str that contains PEM), or a pin.
KeySource = str | os.PathLike[str] | bytes | Pin

_KINDS = (str, os.PathLike, bytes, Pin)


@dataclass(frozen=True, slots=True)
class Key:
    """A backup key.

    Attributes:
        label: its name in messages: its file, or the argument.
        pin: its pin.
        path: its file, or None.
        public_key: the key object of cryptography; None for a bare pin, or if cryptography does not know its kind.
    """

    label: str
    pin: Pin
    path: Path | None = None
    public_key: object = None


@dataclass(frozen=True, slots=True)
class Chain:
    """A deployed chain.

    Attributes:
        label: its name in messages: its file, or the argument.
        pins: the pin of each certificate, leaf first; None for a key that cannot be pinned (§2.6). A bare key or pin
            has one pin.
        names: the DNS names of the leaf, also with wildcards; None if there is no certificate.
        path: its file, or None.
        certificates: the certificates, DER, in the order of the file; empty for a bare key or pin.
    """

    label: str
    pins: tuple[Pin | None, ...]
    names: tuple[str, ...] | None
    path: Path | None = None
    certificates: tuple[bytes, ...] = ()

    @property
    def pinnable(self) -> tuple[Pin, ...]:
        """The pins, leaf first, without keys that cannot be pinned."""
        return tuple(pin for pin in self.pins if pin is not None)

    @classmethod
    def of(cls, certificates: Iterable[bytes], label: str, path: Path | None = None) -> Chain:
        """Make a chain from DER certificates, leaf first.

        Raises:
            UnpinnableKey: if there is none, or the leaf's key cannot be pinned.
        """
        ders = tuple(certificates)
        if not ders:
            raise UnpinnableKey("there is no certificate")
        pins = (Pin.from_certificate(ders[0]), *map(pin_or_none, ders[1:]))
        names = certificate_names(ders[0])
        return cls(label, pins, None if names is None else names.dns, path, ders)


def located(option: str, sources: KeySource | Iterable[KeySource]) -> tuple[KeySource, ...]:
    """One or several sources as a tuple. Paths become absolute, since a server may change its working directory.

    Raises:
        PolicyError: if a value is not a source; the message names the option.
    """
    each = cast("tuple[KeySource, ...]", several(option, sources, _KINDS, "paths, PEM or DER as bytes, or pins"))
    return tuple(source if (path := path_of(source)) is None else path.absolute() for source in each)


def several(option: str, values: object, kinds: tuple[type, ...], wanted: str) -> tuple[object, ...]:
    """One or several values as a tuple.

    Raises:
        PolicyError: if a value has another type; the message names the option and what is `wanted`.
    """
    is_one = isinstance(values, kinds) or not isinstance(values, Iterable)
    found: list[object] = [values] if is_one else [*cast("Iterable[object]", values)]
    other = next((value for value in found if not isinstance(value, kinds)), None)
    if other is not None or None in found:
        raise PolicyError(f"{option}= contains a value of type {type(other).__name__}: give {wanted}")
    return tuple(found)


def path_of(source: KeySource) -> Path | None:
    """The path of a source, or None if it is not a file."""
    if isinstance(source, os.PathLike) or (isinstance(source, str) and "-----BEGIN " not in source):
        return Path(source)
    return None


def read_key(source: KeySource, label: str) -> Key:
    """Read a backup key: from a certificate or its chain, a public or private key, or a CSR.

    Args:
        source: the key.
        label: its name in messages if it is not a file.

    Raises:
        PolicyError: if the file cannot be read, has no key that can be pinned, or has several; the message names it.
    """
    if isinstance(source, Pin):
        return Key(label, source)
    label, data = _load(source, label)
    try:
        return Key(label, _only_pin(data), path_of(source), public_key(data))
    except UnpinnableKey as error:
        raise PolicyError(f"{label}: {error}") from None


def read_chain(source: KeySource, label: str) -> Chain:
    """Read a deployed chain; `label` is its name in messages if it is not a file.

    Raises:
        PolicyError: if the file cannot be read or has no key that can be pinned; the message names it.
    """
    if isinstance(source, Pin):
        return Chain(label, (source,), None)
    label, data = _load(source, label)
    try:
        ders = certificates(data)
        if ders:
            return Chain.of(ders, label, path_of(source))
        return Chain(label, (_only_pin(data),), None, path_of(source))
    except UnpinnableKey as error:
        raise PolicyError(f"{label}: {error}") from None


def _only_pin(data: bytes) -> Pin:
    """The pin of a file. It would be the first one of several, and nobody would miss the others until one is deployed.

    Raises:
        UnpinnableKey: if there is none, or more than one.
    """
    pin = Pin.from_bytes(data)
    ders = certificates(data)
    others = _strangers(ders) if ders else pins_without_certificate(data) - {pin}
    if others:
        raise UnpinnableKey(
            f"it has several keys, {pin} and {', '.join(map(str, sorted(others)))}, and only the first one would be "
            "pinned: put each into a file of its own"
        )
    return pin


def _strangers(ders: Sequence[bytes]) -> set[Pin]:
    """The pins of the certificates in a file that are not of the first one's chain."""
    loaded = [(der, load_certificate(der)) for der in ders]
    known = [each for _, each in loaded if each is not None]
    return {
        pin
        for der, each in loaded[1:]
        if (pin := pin_or_none(der)) is not None
        and pin != Pin.from_certificate(ders[0])
        and each is not None
        and not is_ca(each)
        and not any(is_issuer(each, other) for other in known)
    }


_LOADERS: tuple[Callable[[bytes], object], ...] = (
    lambda data: x509.load_pem_x509_certificate(data).public_key(),
    lambda data: x509.load_der_x509_certificate(data).public_key(),
    lambda data: x509.load_pem_x509_csr(data).public_key(),
    lambda data: x509.load_der_x509_csr(data).public_key(),
    load_pem_public_key,
    load_der_public_key,
    lambda data: load_pem_private_key(data, None).public_key(),
    lambda data: load_der_private_key(data, None).public_key(),
)


def public_key(data: bytes) -> object:
    """The public key of a certificate, CSR, public or unencrypted private key (PEM or DER); None if there is none."""
    for load in _LOADERS:
        try:
            return load(data)
        except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion):
            continue
    return None


def holds_private_key(data: bytes) -> bool:
    """Whether there is a private key in a file, PEM, or DER without encryption. No pin can be made of encrypted DER."""
    try:
        load_der_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return b"PRIVATE KEY-----" in data
    return True


def _load(source: str | os.PathLike[str] | bytes, label: str) -> tuple[str, bytes]:
    if isinstance(source, bytes):
        return label, source
    path = path_of(source)
    if path is None:
        return label, os.fspath(source).encode("utf-8", "replace")
    try:
        return str(path), read_file(path)
    except OSError as error:
        raise PolicyError(f"{path} cannot be read ({error.strerror or error}); {label} names it") from None
    except ValueError as error:
        raise PolicyError(f"{label} names no file: {error}") from None


def pin_or_none(der: bytes) -> Pin | None:
    """The pin of a certificate, DER; None if its key cannot be pinned (§2.6)."""
    try:
        return Pin.from_certificate(der)
    except UnpinnableKey:
        return None


class CertificateNames(NamedTuple):
    """The names of a certificate (RFC 6125 §6.4: the common name is ignored).

    Attributes:
        dns: the DNS names, also with wildcards.
        addresses: the IP addresses, as text.
    """

    dns: tuple[str, ...]
    addresses: tuple[str, ...]


def certificate_names(der: bytes) -> CertificateNames | None:
    """The names of a certificate, DER; None if it has none, or they cannot be read."""
    certificate = load_certificate(der)
    if certificate is None:
        return None
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return None
    addresses = found.value.get_values_for_type(x509.IPAddress)
    return CertificateNames(tuple(found.value.get_values_for_type(x509.DNSName)), tuple(map(str, addresses)))
