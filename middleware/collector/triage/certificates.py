"""The certificates of a report, decoded for people. Anybody may have made them: only a signature proves anything."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from dynpin.pins import Pin
from dynpin.report import certificate_pin

__all__ = ["Decoded", "decode", "names_cover"]

_PartT = TypeVar("_PartT")


@dataclass(frozen=True, slots=True)
class Decoded:
    """One certificate for the pages. What cannot be read is None or empty, and `fault` says why.

    Attributes:
        pem: the text as it was sent.
        pin: its pin, or None if its key cannot be read.
        fingerprint: the SHA-256 of the DER, hexadecimal.
        subject: the common name, or another name of the subject.
        issuer: the same for the issuer.
        names: all DNS names of the certificate.
        not_before: seconds since the epoch, UTC.
        not_after: seconds since the epoch, UTC.
        key: kind and size of the key.
        is_ca: whether basicConstraints says CA.
        is_self_issued: whether subject and issuer are the same.
        has_public_marks: whether it has what public CAs put in: policies, and addresses for revocation checks.
        fault: why it, or a part of it, could not be read; an empty text if all could.
        subject_name: the whole name of the subject; None if it cannot be read.
        issuer_name: the same for the issuer.
    """

    pem: str
    pin: Pin | None
    fingerprint: str = ""
    subject: str = ""
    issuer: str = ""
    serial: str = ""
    names: tuple[str, ...] = ()
    not_before: float | None = None
    not_after: float | None = None
    key: str = ""
    is_ca: bool = False
    is_self_issued: bool = False
    has_public_marks: bool = False
    fault: str = ""
    subject_name: x509.Name | None = field(default=None, repr=False, compare=False)
    issuer_name: x509.Name | None = field(default=None, repr=False, compare=False)
    certificate: x509.Certificate | None = field(default=None, repr=False, compare=False)


def decode(pem: str) -> Decoded:
    """Read one certificate. This never raises for its content."""
    pin = certificate_pin(pem)
    try:
        certificate = _load(pem)
        return _described(pem, pin, certificate)
    except Exception as error:  # noqa: BLE001 - a stranger's bytes: the parser may raise anything
        return Decoded(pem, pin, fault=f"does not decode: {str(error).partition('. See')[0][:120]}")


def _load(pem: str) -> x509.Certificate:
    with warnings.catch_warnings():
        # Old roots have the serial number zero, and cryptography warns of it. Only their issuer can fix that.
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        return x509.load_pem_x509_certificate(pem.encode("ascii", "replace"))


def _described(pem: str, pin: Pin | None, certificate: x509.Certificate) -> Decoded:
    subject, no_subject = _part("subject", lambda: certificate.subject)
    issuer, no_issuer = _part("issuer", lambda: certificate.issuer)
    found, no_extensions = _part("extensions", lambda: {each.oid: each.value for each in certificate.extensions})
    extensions = found or {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        serial = f"{certificate.serial_number:x}"
    names = extensions.get(x509.SubjectAlternativeName.oid)
    constraints = extensions.get(x509.BasicConstraints.oid)
    return Decoded(
        pem=pem,
        pin=pin,
        fingerprint=hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest(),
        subject=_name(subject),
        issuer=_name(issuer),
        serial=serial,
        names=tuple(name[:255] for name in names.get_values_for_type(x509.DNSName))
        if isinstance(names, x509.SubjectAlternativeName)
        else (),
        not_before=certificate.not_valid_before_utc.timestamp(),
        not_after=certificate.not_valid_after_utc.timestamp(),
        key=_key(certificate),
        is_ca=isinstance(constraints, x509.BasicConstraints) and constraints.ca,
        is_self_issued=subject is not None and subject == issuer,
        has_public_marks={x509.AuthorityInformationAccess.oid, x509.CertificatePolicies.oid} <= extensions.keys()
        and _is_for_servers(extensions.get(x509.ExtendedKeyUsage.oid)),
        fault=no_subject or no_issuer or no_extensions,
        subject_name=subject,
        issuer_name=issuer,
        certificate=certificate,
    )


def _part(what: str, read: Callable[[], _PartT]) -> tuple[_PartT | None, str]:
    """A part of a certificate, and why it could not be read.

    cryptography is stricter than clients: it refuses a name in Latin-1, and all extensions for one that it cannot read.
    Such a part must not hide the key and the signature of an attacker's certificate.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CryptographyDeprecationWarning)
            return read(), ""
    except Exception as error:  # noqa: BLE001 - a stranger's bytes: the parser may raise anything
        return None, f"its {what} cannot be read: {str(error)[:120]}"


def _is_for_servers(usage: object) -> bool:
    return not isinstance(usage, x509.ExtendedKeyUsage) or ExtendedKeyUsageOID.SERVER_AUTH in usage


def _name(name: x509.Name | None) -> str:
    if name is None:
        return ""
    for oid in (NameOID.COMMON_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME, NameOID.ORGANIZATION_NAME):
        for attribute in name.get_attributes_for_oid(oid):
            value = attribute.value
            return (value if isinstance(value, str) else value.hex())[:200]
    return name.rfc4514_string()[:200]


def _key(certificate: x509.Certificate) -> str:
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return "unknown"
    match key:
        case rsa.RSAPublicKey():
            return f"RSA {key.key_size}"
        case ec.EllipticCurvePublicKey():
            return f"EC {key.curve.name}"
        case dsa.DSAPublicKey():
            return f"DSA {key.key_size}"
        case ed25519.Ed25519PublicKey():
            return "Ed25519"
        case ed448.Ed448PublicKey():
            return "Ed448"
        case _:
            return "unknown"


def names_cover(names: Sequence[str], host: str) -> bool:
    """Whether one of the names matches the host: exactly, or with a wildcard as leftmost label (RFC 6125 §6.4.3)."""
    parent = host.partition(".")[2]
    return any(name.lower().removesuffix(".") in (host, f"*.{parent}") for name in names)
