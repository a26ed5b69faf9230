"""The uses of a certificate, and whether another one issued it (RFC 5280)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

__all__ = [
    "der_of",
    "is_ca",
    "is_issuer",
    "is_self_signed",
    "is_signed_by",
    "load_certificate",
    "misused",
    "name_of",
    "unusable",
]


@lru_cache(maxsize=512)
def load_certificate(der: bytes) -> x509.Certificate | None:
    """The certificate, or None if cryptography cannot read it. OpenSSL may read it nevertheless."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        # cryptography reads the names when somebody asks for them: it would raise there.
        _ = certificate.subject, certificate.issuer
    except (ValueError, x509.InvalidVersion):
        return None
    return certificate


def der_of(certificate: x509.Certificate) -> bytes:
    """The certificate, DER."""
    return certificate.public_bytes(Encoding.DER)


def is_issuer(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    """Whether `issuer` issued `certificate`, by names and signature."""
    return issuer is not certificate and _is_issued_by(certificate, issuer)


def is_self_signed(certificate: x509.Certificate) -> bool:
    """Whether a certificate issued itself."""
    return _is_issued_by(certificate, certificate)


def _is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    if issuer.subject != certificate.issuer:
        return False
    try:
        return is_signed_by(certificate, issuer.public_key())
    except (ValueError, UnsupportedAlgorithm):
        return False


def is_signed_by(certificate: x509.Certificate, key: object) -> bool:
    """Whether this public key signed a certificate."""
    signature, signed = certificate.signature, certificate.tbs_certificate_bytes
    try:
        digest = certificate.signature_hash_algorithm
        if isinstance(key, rsa.RSAPublicKey) and digest is not None:
            how = certificate.signature_algorithm_parameters
            key.verify(signature, signed, how if isinstance(how, padding.PSS) else padding.PKCS1v15(), digest)
        elif isinstance(key, ec.EllipticCurvePublicKey) and digest is not None:
            key.verify(signature, signed, ec.ECDSA(digest))
        elif isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
            key.verify(signature, signed)
        else:
            return False
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return True


def is_ca(certificate: x509.Certificate) -> bool:
    """Whether a certificate is a CA certificate, by its basic constraints (RFC 5280 §4.2.1.9)."""
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return False


def name_of(name: x509.Name) -> str:
    """A distinguished name, for a message."""
    return name.rfc4514_string() or "a certificate without a name"


def misused(path: Sequence[x509.Certificate]) -> Iterator[str]:
    """Why clients refuse a path, leaf first, for what one of its issuers may not do (RFC 5280 §4.2.1, §6.1.4)."""
    names = _dns_names(path[0])
    below = 0
    for each in path[1:]:
        why = next(_forbidden(each, below, names), None)
        if why is not None:
            yield f"({name_of(each.subject)}) issued another one, but {why}"
        # A CA that changes its key issues itself a certificate, which does not count (RFC 5280 §4.2.1.9).
        below += each.subject != each.issuer


def _forbidden(issuer: x509.Certificate, below: int, names: Sequence[str]) -> Iterator[str]:
    """Why a certificate must not be the issuer in a path with `below` intermediates and a leaf for these DNS names."""
    if not is_ca(issuer) and not is_self_signed(issuer):
        yield "is not a CA certificate"
    try:
        values = [each.value for each in issuer.extensions]
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return  # OpenSSL may read what cryptography cannot
    for value in values:
        match value:
            case x509.KeyUsage(key_cert_sign=False):
                yield "its key usage does not permit that (RFC 5280 §4.2.1.3)"
            case x509.ExtendedKeyUsage() if not _SERVER.intersection(value):
                yield "not for servers: its extended key usage lacks serverAuth (RFC 5280 §4.2.1.12)"
            case x509.BasicConstraints(path_length=int(most)) if below > most:
                yield f"permits only {most} intermediate certificates below itself (RFC 5280 §4.2.1.9)"
            case x509.NameConstraints():
                yield from (f"may not issue for {name} (RFC 5280 §4.2.1.10)" for name in names if _bars(value, name))
            case _:
                pass


def _bars(constraints: x509.NameConstraints, name: str) -> bool:
    permitted, excluded = (
        [each.value.lower() for each in subtrees or () if isinstance(each, x509.DNSName)]
        for subtrees in (constraints.permitted_subtrees, constraints.excluded_subtrees)
    )
    return any(_within(name, each) for each in excluded) or bool(
        permitted and not any(_within(name, each) for each in permitted)
    )


def _within(name: str, subtree: str) -> bool:
    return not subtree or name == subtree or name.endswith(f".{subtree.removeprefix('.')}")


def _dns_names(leaf: x509.Certificate) -> tuple[str, ...]:
    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return ()
    return tuple(name.lower() for name in found.get_values_for_type(x509.DNSName))


# Extensions that OpenSSL knows and cryptography does not (RFC 3779, RFC 3820).
_KNOWN_BY_OPENSSL = {"1.3.6.1.5.5.7.1.7", "1.3.6.1.5.5.7.1.8", "1.3.6.1.5.5.7.1.14"}
# OpenSSL takes anyExtendedKeyUsage for no purpose.
_SERVER = {ExtendedKeyUsageOID.SERVER_AUTH}


def unusable(leaf: x509.Certificate) -> Iterator[str]:
    """Why clients refuse a certificate for a TLS server with any name and date, one reason each."""
    try:
        extensions = leaf.extensions
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return  # OpenSSL may read what cryptography cannot
    for each in extensions:
        value, name = each.value, each.oid.dotted_string
        if isinstance(value, x509.PrecertPoison):
            yield "is a precertificate, which is not a certificate (RFC 6962 §3.1)"
        elif isinstance(value, x509.UnrecognizedExtension) and each.critical and name not in _KNOWN_BY_OPENSSL:
            yield f"has a critical extension that clients do not know ({name}), so they refuse it (RFC 5280 §4.2)"
        elif isinstance(value, x509.ExtendedKeyUsage) and not _SERVER.intersection(value):
            yield "is not for servers: its extended key usage lacks serverAuth (RFC 5280 §4.2.1.12)"
        elif isinstance(value, x509.KeyUsage) and not (
            value.digital_signature or value.key_encipherment or value.key_agreement
        ):
            yield "is not for servers: its key usage permits no handshake (RFC 5280 §4.2.1.3)"
