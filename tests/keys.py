"""The keys and files of the tests of pins."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TypedDict

import cryptography_vectors
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)
from cryptography.x509.oid import NameOID

from dynpin import Pin

VECTORS = Path(cryptography_vectors.__file__).parent


class Key(TypedDict):
    """One key of vectors/spki.json."""

    id: str
    pin: str
    certificate: str
    csr: str
    public_key: str
    private_key: str
    cryptography_reencoded: str


def vector_keys() -> list[Key]:
    loaded: dict[str, list[Key]] = json.loads((Path(__file__).parent / "vectors/spki.json").read_text())
    return loaded["keys"]


each_key = pytest.mark.parametrize("key", vector_keys(), ids=lambda key: key["id"])


def der_of(pem: str) -> bytes:
    return base64.b64decode("".join(line for line in pem.splitlines() if not line.startswith("-----")))


PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey


@cache
def private_key(algorithm: str) -> PrivateKey | dsa.DSAPrivateKey:
    match algorithm:
        case "rsa":
            return rsa.generate_private_key(65537, 2048)
        case "p-256":
            return ec.generate_private_key(ec.SECP256R1())
        case "p-384":
            return ec.generate_private_key(ec.SECP384R1())
        case "p-521":
            return ec.generate_private_key(ec.SECP521R1())
        case "secp256k1":
            return ec.generate_private_key(ec.SECP256K1())
        case "brainpoolP256r1":
            return ec.generate_private_key(ec.BrainpoolP256R1())
        case "ed25519":
            return ed25519.Ed25519PrivateKey.generate()
        case "ed448":
            return ed448.Ed448PrivateKey.generate()
        case _:  # making DSA parameters takes seconds, so they are read
            key = load_der_private_key((VECTORS / "asymmetric/DER_Serialization/dsa.2048.der").read_bytes(), None)
            assert isinstance(key, dsa.DSAPrivateKey)
            return key


def spki(key: PrivateKey | dsa.DSAPrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def pin_of(key: PrivateKey | dsa.DSAPrivateKey) -> Pin:
    return Pin(hashlib.sha256(spki(key)).digest())


NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bank.test")])


@cache
def certificate(algorithm: str, comment: bytes = b"") -> x509.Certificate:
    key = private_key(algorithm)
    builder = (
        x509.CertificateBuilder()
        .subject_name(NAME)
        .issuer_name(NAME)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=30))
    )
    if comment:
        oid = x509.ObjectIdentifier("2.16.840.1.113730.1.13")  # Netscape comment
        builder = builder.add_extension(x509.UnrecognizedExtension(oid, comment), critical=False)
    return builder.sign(key, None if algorithm.startswith("ed") else hashes.SHA256())


def private_pem(
    algorithm: str,
    form: PrivateFormat = PrivateFormat.PKCS8,
    encryption: KeySerializationEncryption | None = None,
    encoding: Encoding = Encoding.PEM,
) -> bytes:
    return private_key(algorithm).private_bytes(encoding, form, encryption or NoEncryption())


# RFC 7469 §2.4: "If the certificate's Subject Public Key Info is incomplete when taken in isolation, such as when
# holding a DSA key without domain parameters, a public key pin cannot be formed."
INHERITED = "x509/PKITS_data/certs/DSAParametersInheritedCACert.crt"
