"""A small CA for tests of the guard: certificates of any key, names and dates, as files."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from dynpin import Pin

__all__ = ["Authority", "new_key", "private_pem", "public_pem"]

NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
DAY = datetime.timedelta(days=1)
Key = ec.EllipticCurvePrivateKey


def new_key() -> Key:
    return ec.generate_private_key(ec.SECP256R1())


def private_pem(key: Key) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def public_pem(key: Key) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def pin_of(key: Key) -> Pin:
    return Pin.from_public_key(public_pem(key))


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


class Authority:
    """An intermediate CA: a chain of it is the leaf and this certificate.

    Attributes:
        strict: whether its certificates name the key of their issuer, as RFC 5280 §4.2.1.1 wants.
    """

    def __init__(self) -> None:
        self.key, self.strict = new_key(), True
        self.pem = self._sign("a CA", self.key, "a CA", start=NOW - 400 * DAY, end=NOW + 4000 * DAY, is_ca=True)

    def leaf(
        self,
        key: Key,
        *names: str,
        start: datetime.datetime = NOW - DAY,
        end: datetime.datetime = NOW + 4000 * DAY,
        self_signed: bool = False,
        named: bool = True,
    ) -> bytes:
        """A certificate for these names; if it is not `named`, with the first one as its common name alone."""
        issuer = names[0] if self_signed else "a CA"
        return self._sign(
            names[0],
            key,
            issuer,
            names=names if named else (),
            start=start,
            end=end,
            signer=key if self_signed else None,
        )

    def chain(self, key: Key, *names: str) -> bytes:
        return self.leaf(key, *names) + self.pem

    def _sign(
        self,
        subject: str,
        key: Key,
        issuer: str,
        *,
        start: datetime.datetime,
        end: datetime.datetime,
        names: Sequence[str] = (),
        is_ca: bool = False,
        signer: Key | None = None,
    ) -> bytes:
        number = x509.random_serial_number()
        made = x509.CertificateBuilder(_name(issuer), _name(subject), key.public_key(), number, start, end)
        made = made.add_extension(x509.BasicConstraints(is_ca, None), critical=True)
        if names:
            made = made.add_extension(
                x509.SubjectAlternativeName([x509.DNSName(each) for each in names]), critical=False
            )
        if is_ca:
            usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)  # signs certificates
            made = made.add_extension(usage, critical=True)
        if self.strict:
            own, issuing = key.public_key(), (signer or self.key).public_key()
            made = made.add_extension(x509.SubjectKeyIdentifier.from_public_key(own), critical=False)
            made = made.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuing), critical=False)
        return made.sign(signer or self.key, hashes.SHA256()).public_bytes(Encoding.PEM)


class Shop:
    """The site ``shop.acme.test`` in a folder: its chain and key in ``tls/``, a backup key, and its dynpin.toml."""

    HOST = "shop.acme.test"

    def __init__(self, folder: Path, *hosts: str) -> None:
        self.folder, self.hosts = folder, hosts or (self.HOST,)
        self.authority, self.key, self.backup, self.next = Authority(), new_key(), new_key(), new_key()
        self.tls = folder / "tls"
        self.tls.mkdir(parents=True)
        (self.tls / "fullchain.pem").write_bytes(self.authority.chain(self.key, *self.hosts))
        (self.tls / "privkey.pem").write_bytes(private_pem(self.key))
        (self.tls / "privkey.pem").chmod(0o600)
        (folder / "backup.pub").write_bytes(public_pem(self.backup))
        (folder / "next.pub").write_bytes(public_pem(self.next))
        self.inventory = folder / "dynpin.toml"
        self.describe("tls/fullchain.pem", "backup.pub", "next.pub")

    def describe(self, keys: str, *backups: str) -> None:
        hosts, listed = (", ".join(f'"{each}"' for each in texts) for texts in (self.hosts, backups))
        self.inventory.write_text(
            f'hosts = [{hosts}]\nkeys = ["{keys}"]\nbackups = [{listed}]\n\n[policy]\nmax_age = "30 days"\n'
        )

    def renewed(self, chain: bytes, key: Key | None = None, name: str = "renewed") -> Path:
        """A folder as certbot has one for each lineage; the path of the chain in it."""
        lineage = self.folder / name
        lineage.mkdir(exist_ok=True)
        (lineage / "fullchain.pem").write_bytes(chain)
        (lineage / "privkey.pem").write_bytes(private_pem(key or self.key))
        return lineage / "fullchain.pem"
