"""Keys, certificates and authorities for scenarios: any authority can certify any key, at any time.

trustme has no functions for these: a new certificate for an old key, a cross-signed root, an expired leaf.
"""

from __future__ import annotations

import ssl
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from dynpin.pins import Pin

__all__ = ["Authority", "Certificate", "KeyPair"]

_DAY = timedelta(days=1)


class KeyPair:
    """A private key with its name and owner.

    Args:
        name: its name in the story, such as ``"bank.test key 2"``.
        owner: the name of the actor who has the private half.
    """

    def __init__(self, name: str, owner: str) -> None:
        self.name = name
        self.owner = owner
        self.private = ec.generate_private_key(ec.SECP256R1())

    @cached_property
    def pin(self) -> Pin:
        """The pin of the key."""
        return Pin.from_public_key(self.public_pem)

    @property
    def public_pem(self) -> bytes:
        """The public half: a Backup Pin needs no more on the server."""
        return self.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    @property
    def private_pem(self) -> bytes:
        """The private half."""
        return self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@dataclass(frozen=True)
class Certificate:
    """A certificate with its key and its issuers.

    Attributes:
        key: the certified key.
        issuer: the authority that signed it.
        served: the chain that a server sends: the leaf and its issuers, without the root.
    """

    key: KeyPair
    issuer: Authority
    served: tuple[x509.Certificate, ...]

    @property
    def pem(self) -> bytes:
        """The chain that a server sends, as in a ``fullchain.pem``."""
        return b"".join(each.public_bytes(Encoding.PEM) for each in self.served)

    @property
    def pins(self) -> tuple[Pin, ...]:
        """The pins of the chain up to the root, leaf first."""
        return (self.key.pin, *(issuer.key.pin for issuer in self.issuer.lineage))

    @property
    def served_pins(self) -> tuple[Pin, ...]:
        """The pins of the chain that a server sends, leaf first: without the root."""
        return self.pins[: len(self.served)]

    def configure_cert(self, context: ssl.SSLContext) -> None:
        """Make a server's context show it (trustme's certificates have this method too)."""
        with tempfile.TemporaryDirectory(prefix="dynpin-lab-") as folder:  # ssl reads keys only from files
            file = Path(folder) / "certificate.pem"
            file.write_bytes(self.key.private_pem + self.pem)
            context.load_cert_chain(file)


class Authority:
    """A certificate authority: a root, or an intermediate that its `parent` has signed.

    Args:
        name: its name in the story and in its certificate.
        parent: the authority that signs its certificate; None for a root.
        key: its key, if the key is older than this certificate.
    """

    def __init__(self, name: str, parent: Authority | None = None, key: KeyPair | None = None) -> None:
        self.name = name
        self.parent = parent
        self.key = key or KeyPair(f"{name} key", name)
        self.certificate = self._certify(name, self.key, parent or self, ca=True)

    @property
    def pem(self) -> bytes:
        """Its own certificate."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def der(self) -> bytes:
        """The same in DER."""
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def lineage(self) -> tuple[Authority, ...]:
        """The authority itself and its signers, up to the root."""
        return (self, *(self.parent.lineage if self.parent else ()))

    def intermediate(self, name: str) -> Authority:
        """A new authority that this one signs."""
        return Authority(name, self)

    def cross_signed(self, by: Authority) -> Authority:
        """The same authority, with the same name and key, signed by another one: its chains end in either root."""
        return Authority(self.name, by, self.key)

    def issue(self, host: str, key: KeyPair, *, expired: bool = False) -> Certificate:
        """Certify a key for a name.

        Args:
            host: the name.
            key: the key.
            expired: whether it expired yesterday. That is by the clock of this machine, since OpenSSL uses no other.
        """
        leaf = self._certify(host, key, self, ca=False, expired=expired)
        return Certificate(key, self, (leaf, *(each.certificate for each in self.lineage if each.parent)))

    @staticmethod
    def _certify(name: str, key: KeyPair, issuer: Authority, *, ca: bool, expired: bool = False) -> x509.Certificate:
        now = datetime.now(UTC)
        public, signing = key.private.public_key(), issuer.key.private
        usage = x509.KeyUsage(
            digital_signature=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=ca,
            crl_sign=ca,
            encipher_only=False,
            decipher_only=False,
        )
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name(issuer.name))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 400 * _DAY)
            .not_valid_after(now - _DAY if expired else now + 3650 * _DAY)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), critical=False)
        )
        if not ca:
            names = x509.SubjectAlternativeName([_subject(name)])
            builder = builder.add_extension(names, critical=False)
            builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        return builder.sign(signing, SHA256())


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _subject(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)
