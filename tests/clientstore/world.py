"""A site, its attacker and a client, on real sockets: the base of the tests of enforcement."""

from __future__ import annotations

import contextlib
import datetime
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from dynpin import Pin, PublicKeyPins
from dynpin.clientstore import PinStore, enforce
from dynpin.lab.network import TLSServer

HOST = "bank.test"


def leaf_pin(certificate: trustme.LeafCert) -> Pin:
    return Pin.from_certificate(certificate.cert_chain_pems[0].bytes())


@dataclass
class World:
    """`site` has the pinned key; `attacker` has a certificate for the same name, from another trusted CA."""

    honest: trustme.CA
    rogue: trustme.CA
    certificate: trustme.LeafCert
    backup: trustme.LeafCert
    stolen_name: trustme.LeafCert
    site: TLSServer
    attacker: TLSServer
    store: PinStore
    folder: Path

    @property
    def header(self) -> PublicKeyPins:
        return PublicKeyPins((leaf_pin(self.certificate), leaf_pin(self.backup)), max_age=3600)

    def pin_site(self, host: str = HOST) -> None:
        self.store.pin(host, self.header.pins)

    def roots_file(self, name: str = "roots.pem") -> Path:
        """Both authorities, as a program is told of its roots."""
        file = self.folder / name
        file.write_bytes(self.honest.cert_pem.bytes() + self.rogue.cert_pem.bytes())
        return file

    def plain_context(self) -> ssl.SSLContext:
        """A context that trusts both authorities, like a client with a large trust store."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        for authority in (self.honest, self.rogue):
            context.load_verify_locations(cadata=authority.cert_pem.bytes().decode("ascii"))
        return context

    def context(self) -> ssl.SSLContext:
        return enforce(self.plain_context(), self.store)

    def connect(self, server: TLSServer) -> socket.socket:
        return socket.create_connection(("127.0.0.1", server.port), timeout=60)


@contextlib.contextmanager
def tls_world(
    honest: trustme.CA, rogue: trustme.CA, folder: Path, *more: str, clock: Callable[[], float] = time.time
) -> Iterator[World]:
    """Two servers that count what they receive, and a store without pins; the site also has `more` names."""
    certificate, backup, stolen = honest.issue_cert(HOST, *more), honest.issue_cert(HOST), rogue.issue_cert(HOST)
    with TLSServer(certificate) as site, TLSServer(stolen) as attacker, PinStore(folder / "pins", clock=clock) as store:
        yield World(honest, rogue, certificate, backup, stolen, site, attacker, store, folder)


def forged_leaf(authority: trustme.CA, host: str = HOST) -> tuple[bytes, bytes]:
    """A leaf that names `authority` as its issuer but is signed by somebody else: key and chain, PEM."""
    issuer = x509.load_pem_x509_certificate(authority.cert_pem.bytes())
    key, forger = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    authority_key_id = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(authority_key_id), critical=False)
        .sign(forger, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    chain = certificate.public_bytes(serialization.Encoding.PEM) + authority.cert_pem.bytes()
    return private, chain


def cross_signed(intermediate: trustme.CA, other: trustme.CA) -> bytes:
    """A certificate from another authority for the intermediate's own name and key, PEM."""
    own = x509.load_pem_x509_certificate(intermediate.cert_pem.bytes())
    issuer = x509.load_pem_x509_certificate(other.cert_pem.bytes())
    key = serialization.load_pem_private_key(other.private_key_pem.bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    builder = (
        x509.CertificateBuilder()
        .subject_name(own.subject)
        .issuer_name(issuer.subject)
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(own.not_valid_before_utc)
        .not_valid_after(own.not_valid_after_utc)
    )
    for kind in (x509.BasicConstraints, x509.KeyUsage, x509.SubjectKeyIdentifier):
        extension = own.extensions.get_extension_for_class(kind)
        builder = builder.add_extension(extension.value, critical=extension.critical)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def odd_leaf(authority: trustme.CA, host: str, old: bytes, new: bytes) -> tuple[bytes, bytes]:
    """A leaf of the authority with the bytes `old` replaced by `new`, as an attacker with an authority may make it.

    OpenSSL accepts certificates that cryptography does not. `new` must be as long as `old`. Key and chain, PEM.
    """
    issuer = x509.load_pem_x509_certificate(authority.cert_pem.bytes())
    signer = serialization.load_pem_private_key(authority.private_key_pem.bytes(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    sound = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "\0odd")]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(signer, hashes.SHA256())
    )
    body = sound.tbs_certificate_bytes
    assert old in body
    assert len(old) == len(new)
    body = body.replace(old, new, 1)
    rest = sound.public_bytes(serialization.Encoding.DER)[4 + len(body) : -len(sound.signature) - 3]
    signed = body + rest + _tlv(0x03, b"\0" + signer.sign(body, ec.ECDSA(hashes.SHA256())))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private, ssl.DER_cert_to_PEM_cert(_tlv(0x30, signed)).encode() + authority.cert_pem.bytes()


def _tlv(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < 0x80:
        return bytes([tag, length]) + content
    size = (length.bit_length() + 7) // 8
    return bytes([tag, 0x80 | size]) + length.to_bytes(size) + content
