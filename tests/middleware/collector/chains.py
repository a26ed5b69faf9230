"""Real certificate chains, made in a line each: `authority("Root")`, `root.issue("a.test")`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from dynpin import Pin


@dataclass(frozen=True)
class Issued:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()

    @property
    def pin(self) -> str:
        return str(Pin.from_certificate(self.pem))

    def issue(
        self,
        name: str,
        *,
        ca: bool = False,
        since: float = 0,
        days: float = 365,
        more: Sequence[str] = (),
        extension: x509.ExtensionType | None = None,
    ) -> Issued:
        """A certificate that this one signs, valid from `since` (seconds since the epoch), for `more` names too."""
        key = ec.generate_private_key(ec.SECP256R1())
        return _issue(name, key, self, ca=ca, since=since, days=days, more=more, extension=extension)

    def cross_sign(self, other: Issued) -> Issued:
        """The other's key and name, signed by this one: a second path."""
        name = other.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
        return _issue(str(name), other.key, self, ca=True, since=0, days=30_000)


def authority(name: str) -> Issued:
    """A root that nobody knows."""
    return _issue(name, ec.generate_private_key(ec.SECP256R1()), None, ca=True, since=0, days=30_000)


def _issue(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    by: Issued | None,
    *,
    ca: bool,
    since: float,
    days: float,
    more: Sequence[str] = (),
    extension: x509.ExtensionType | None = None,
) -> Issued:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    start = datetime.fromtimestamp(since, UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by.certificate.subject if by else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    names = [*([] if ca else [name]), *more]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([*map(x509.DNSName, names)]), critical=False)
    if extension is not None:
        builder = builder.add_extension(extension, critical=False)
    return Issued(builder.sign(by.key if by else key, SHA256()), key)


def nameless(issued: Issued, by: Issued) -> Issued:
    """The same certificate, signed by `by`, with "Café" in Latin-1: OpenSSL reads it, cryptography does not."""
    tbs, signature = issued.certificate.tbs_certificate_bytes, issued.certificate.signature
    changed = tbs.replace(b"\x0c\x04Cafe", b"\x14\x04Caf\xe9")
    while len(again := by.key.sign(changed, ec.ECDSA(SHA256()))) != len(signature):
        pass  # the length of a signature differs by a byte or two
    der = issued.certificate.public_bytes(Encoding.DER).replace(tbs, changed).replace(signature, again)
    return Issued(x509.load_der_x509_certificate(der), issued.key)
