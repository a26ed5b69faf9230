"""What a stranger's certificates cost: which keys are tried, and how often."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from dynpin.middleware.collector.triage import Case, Roots, Signatures, decode, diagnose
from dynpin.report import read_report
from tests.keys import private_key
from tests.middleware.collector.conftest import NOW, report

RSA = rsa.generate_private_key(65537, 2048)
SAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Same name")])


def certificate(key: Any, by: Any, serial: int = 1) -> str:
    """A CA certificate whose subject and issuer are one name; PEM."""
    start = datetime.fromtimestamp(NOW, UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(SAME)
        .issuer_name(SAME)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    plain = isinstance(by, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
    signed = builder.sign(by, None if plain else SHA256())
    return signed.public_bytes(Encoding.PEM).decode()


def crowd(number: int = 20) -> list[str]:
    """Certificates of one name that each might have signed every other: the worst that fits."""
    keys = [ec.generate_private_key(ec.SECP384R1()) for _ in range(number)]
    stranger = ec.generate_private_key(ec.SECP384R1())
    return [certificate(key, stranger, serial) for serial, key in enumerate(keys, start=1)]


def case_of(served: Sequence[str], validated: Sequence[str], signatures: Signatures) -> Case:
    sent = report(served_certificate_chain=list(served), validated_certificate_chain=list(validated))
    return Case(read_report(json.loads(json.dumps(sent))), NOW, "enforce", Roots(b"", b""), signatures=signatures)


def test_of_one_report_only_so_many_signatures_are_verified() -> None:
    signatures = Signatures(limit=30)
    pems = crowd()
    diagnose(case_of(pems, pems[::-1], signatures))
    assert signatures.verified == 30


def test_what_was_not_verified_is_not_called_false() -> None:
    case = case_of([], crowd(), Signatures(limit=5))
    assert case.links[:5] == (False,) * 5
    assert set(case.links[5:]) == {None}


def test_a_signature_is_verified_once() -> None:
    signatures = Signatures()
    pems = crowd(6)
    first = diagnose(case_of(pems, pems, signatures))
    verified = signatures.verified
    signatures.begin()
    assert diagnose(case_of(pems, pems, signatures)).verdict == first.verdict
    assert (verified > 0, signatures.verified) == (True, 0)


@pytest.mark.parametrize(
    ("key", "tried"),
    [
        (RSA, True),
        (rsa.generate_private_key(65537, 1024), False),
        (ec.generate_private_key(ec.SECP256R1()), True),
        (ec.generate_private_key(ec.SECP384R1()), True),
        (ec.generate_private_key(ec.SECP521R1()), True),
        (ed25519.Ed25519PrivateKey.generate(), True),
        (ec.generate_private_key(ec.BrainpoolP512R1()), False),
        (ec.generate_private_key(ec.SECP256K1()), False),
        (ec.generate_private_key(ec.SECP224R1()), False),
        (ed448.Ed448PrivateKey.generate(), False),
        (private_key("dsa"), False),
    ],
    ids=["rsa 2048", "rsa 1024", "p256", "p384", "p521", "ed25519", "brainpool", "p256k1", "p224", "ed448", "dsa"],
)
def test_only_keys_that_a_ca_may_use_are_tried(key: Any, tried: bool) -> None:
    root = decode(certificate(key, key))
    signatures = Signatures()
    assert signatures.is_issued_by(root, root) is (True if tried else None)
    assert signatures.verified == int(tried)


def test_an_exponent_that_makes_rsa_slow_is_not_tried() -> None:
    slow = rsa.RSAPublicNumbers((1 << 2040) + 1, RSA.public_key().public_numbers().n)
    signer = ec.generate_private_key(ec.SECP256R1())

    class Key:
        def public_key(self) -> rsa.RSAPublicKey:
            return slow.public_key()

    issuer = decode(certificate(Key(), signer))
    signatures = Signatures()
    assert signatures.is_issued_by(decode(certificate(signer, signer)), issuer) is None
    assert signatures.verified == 0
