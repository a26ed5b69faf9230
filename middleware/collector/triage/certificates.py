"""The certificates of a report, decoded for people; all of them are hostile until their signatures say otherwise."""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from dynpin.pins import Pin
from dynpin.report import certificate_pin

__all__ = ["Decoded", "Roots", "decode", "is_issued_by", "names_cover"]

_MAX_NAMES = 20


@dataclass(frozen=True, slots=True)
class Decoded:
    """One certificate as it is shown. What cannot be read is None or empty, and `fault` says so.

    Attributes:
        pem: the text as it came.
        pin: its pin, or None where none can be formed.
        fingerprint: the SHA-256 of the DER, hexadecimal.
        subject: the common name, or what stands for it.
        issuer: the same of the issuer.
        names: the DNS names it is for, some of them.
        not_before: seconds since the epoch, UTC.
        not_after: seconds since the epoch, UTC.
        key: kind and size of the key.
        is_ca: whether basicConstraints says CA.
        is_self_issued: whether subject and issuer are one.
        has_public_marks: whether it has what public CAs put in: policies, and where to ask for revocation.
        fault: why it could not be read, or the empty string.
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
    certificate: x509.Certificate | None = field(default=None, repr=False, compare=False)


def decode(pem: str) -> Decoded:
    """Read one certificate; never raises for what is in it."""
    pin = certificate_pin(pem)
    try:
        certificate = _load(pem)
        return _described(pem, pin, certificate)
    except Exception as error:  # noqa: BLE001 - hostile bytes: whatever the parser raises is their fault
        return Decoded(pem, pin, fault=f"does not decode: {str(error).partition('. See')[0][:120]}")


def _load(pem: str) -> x509.Certificate:
    with warnings.catch_warnings():
        # Old roots have a serial number of zero; that is for their issuer to mend.
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        return x509.load_pem_x509_certificate(pem.encode("ascii", "replace"))


def _described(pem: str, pin: Pin | None, certificate: x509.Certificate) -> Decoded:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        extensions = {extension.oid: extension.value for extension in certificate.extensions}
        serial = f"{certificate.serial_number:x}"
    names = extensions.get(x509.SubjectAlternativeName.oid)
    constraints = extensions.get(x509.BasicConstraints.oid)
    return Decoded(
        pem=pem,
        pin=pin,
        fingerprint=hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest(),
        subject=_name(certificate.subject),
        issuer=_name(certificate.issuer),
        serial=serial,
        names=tuple(name[:255] for name in names.get_values_for_type(x509.DNSName)[:_MAX_NAMES])
        if isinstance(names, x509.SubjectAlternativeName)
        else (),
        not_before=certificate.not_valid_before_utc.timestamp(),
        not_after=certificate.not_valid_after_utc.timestamp(),
        key=_key(certificate),
        is_ca=isinstance(constraints, x509.BasicConstraints) and constraints.ca,
        is_self_issued=certificate.subject == certificate.issuer,
        has_public_marks={x509.AuthorityInformationAccess.oid, x509.CertificatePolicies.oid} <= extensions.keys()
        and _is_for_servers(extensions.get(x509.ExtendedKeyUsage.oid)),
        certificate=certificate,
    )


def _is_for_servers(usage: object) -> bool:
    return not isinstance(usage, x509.ExtendedKeyUsage) or ExtendedKeyUsageOID.SERVER_AUTH in usage


def _name(name: x509.Name) -> str:
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


def is_issued_by(certificate: Decoded, issuer: Decoded) -> bool | None:
    """Whether the issuer's key signed the certificate; None where that cannot be checked."""
    if certificate.certificate is None or issuer.certificate is None:
        return None
    try:
        certificate.certificate.verify_directly_issued_by(issuer.certificate)
    except InvalidSignature:
        return False
    except UnsupportedAlgorithm:
        return None
    except (ValueError, TypeError):
        return False  # the names do not even meet, or the key is of another kind
    return True


def names_cover(names: Sequence[str], host: str) -> bool:
    """Whether one of the names is the host's: as it is, or with a wildcard for the leftmost label (RFC 6125 §6.4.3)."""
    parent = host.partition(".")[2]
    return any(name.lower().removesuffix(".") in (host, f"*.{parent}") for name in names)


class Roots:
    """CAs to recognise: the public ones, and the operator's own.

    Args:
        own: the operator's root certificates, PEM, one after the other.
        public: the public ones; None for those of `certifi`.
        as_of: the day of these stores, in seconds since the epoch, UTC; None for now.
    """

    def __init__(self, own: bytes = b"", public: bytes | None = None, as_of: float | None = None) -> None:
        self._as_of = time.time() if as_of is None else as_of
        self._own = _by_subject(own)
        self._public = _public_roots() if public is None else _by_subject(public)

    def kind(self, chain: Sequence[Decoded], before: str | None = None) -> str:
        """``"own"``, ``"public"``, ``"retired"`` (public once) or ``"unknown"``, of a validated chain.

        `before` is what was found when the chain was judged earlier, if it was: what was unknown while it was valid
        does not become a public CA's by expiring, nor does a public root become a stranger by leaving the stores.
        """
        last = chain[-1]
        for kind, roots in (("own", self._own), ("public", self._public)):
            if _ends_in(last, roots):
                return kind
        if before in ("public", "unknown"):
            return "retired" if before == "public" else "unknown"
        # A root that browsers trusted then may be gone today; what a public CA signed still has its marks.
        # A chain of today must end in a root of today: anybody can put such marks into a certificate of his own.
        expired = any(one.not_after is not None and one.not_after < self._as_of for one in chain)
        if expired and chain[0].has_public_marks and all(one.has_public_marks for one in chain[1:-1]):
            return "retired"
        return "unknown"


def _by_subject(bundle: bytes) -> dict[bytes, list[Decoded]]:
    roots: dict[bytes, list[Decoded]] = {}
    for block in bundle.split(b"-----BEGIN CERTIFICATE-----")[1:]:
        root = decode("-----BEGIN CERTIFICATE-----" + block.decode("ascii", "replace"))
        if root.certificate is not None:
            roots.setdefault(root.certificate.subject.public_bytes(), []).append(root)
    return roots


@lru_cache(maxsize=1)
def _public_roots() -> dict[bytes, list[Decoded]]:
    import certifi  # noqa: PLC0415 - read when the first report is judged

    return _by_subject(Path(certifi.where()).read_bytes())


def _ends_in(last: Decoded, roots: dict[bytes, list[Decoded]]) -> bool:
    if last.certificate is None:
        return False
    same_key: Iterable[Decoded] = roots.get(last.certificate.subject.public_bytes(), ())
    if any(root.pin is not None and root.pin == last.pin for root in same_key):
        return True
    return any(is_issued_by(last, root) for root in roots.get(last.certificate.issuer.public_bytes(), ()))
