"""RFC 7469 §2.4: a pin is the SHA-256 of the SubjectPublicKeyInfo as it stands."""

from __future__ import annotations

import base64
import hashlib
import pickle
import re
from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from dynpin import Pin, UnpinnableKey
from dynpin.pins import chain_pins

from .keys import INHERITED, NAME, VECTORS, Key, certificate, der_of, each_key, pin_of, private_key, private_pem

# -- the keys of vectors/spki.json ------------------------------------------------------------------------------------


@each_key
@pytest.mark.parametrize(
    ("kind", "make"),
    [("certificate", Pin.from_certificate), ("csr", Pin.from_csr), ("public_key", Pin.from_public_key)],
    ids=["certificate", "csr", "public_key"],
)
def test_the_pin_is_of_the_bytes_as_they_stand(key: Key, kind: str, make: Callable[[bytes | str], Pin]) -> None:
    pem = {"certificate": key["certificate"], "csr": key["csr"], "public_key": key["public_key"]}[kind]
    der = der_of(pem)
    assert str(make(pem)) == key["pin"]
    assert str(make(pem.encode())) == key["pin"]
    assert str(make(pem.replace("\n", "\r\n"))) == key["pin"]
    assert str(make(der)) == key["pin"]
    assert str(Pin.from_bytes(pem.encode())) == key["pin"]
    assert str(Pin.from_bytes(der)) == key["pin"]


@each_key
def test_the_chain_of_a_handshake_gives_the_same_pins(key: Key) -> None:
    assert [str(pin) for pin in chain_pins([der_of(key["certificate"])])] == [key["pin"]]


@each_key
def test_a_private_key_gives_the_same_pin_or_asks_for_the_certificate(key: Key) -> None:
    pem = key["private_key"]
    for read in (Pin.from_private_key, Pin.from_bytes):
        for data in (pem.encode(), der_of(pem)):
            if key["cryptography_reencoded"] == "same":
                assert str(read(data)) == key["pin"]
            else:
                with pytest.raises(
                    UnpinnableKey, match=r"not certain.*give the certificate, the CSR or the public key"
                ):
                    read(data)


# -- every algorithm, every file --------------------------------------------------------------------------------------


ALGORITHMS = ["rsa", "p-256", "p-384", "p-521", "secp256k1", "brainpoolP256r1", "ed25519", "ed448", "dsa"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_file_of_a_key_gives_one_pin(algorithm: str) -> None:
    key = private_key(algorithm)
    public = key.public_key()
    csr = x509.CertificateSigningRequestBuilder().subject_name(NAME)
    signed = csr.sign(key, None if algorithm.startswith("ed") else hashes.SHA256())
    files = [
        *(certificate(algorithm).public_bytes(encoding) for encoding in (Encoding.PEM, Encoding.DER)),
        *(signed.public_bytes(encoding) for encoding in (Encoding.PEM, Encoding.DER)),
        *(
            public.public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)
            for encoding in (Encoding.PEM, Encoding.DER)
        ),
        *(private_pem(algorithm, encoding=encoding) for encoding in (Encoding.PEM, Encoding.DER)),
    ]
    if isinstance(public, rsa.RSAPublicKey):
        files += [public.public_bytes(encoding, PublicFormat.PKCS1) for encoding in (Encoding.PEM, Encoding.DER)]
    if not algorithm.startswith("ed"):  # PKCS #1, SEC 1 and the old form of DSA
        files += [
            private_pem(algorithm, PrivateFormat.TraditionalOpenSSL, encoding=encoding)
            for encoding in (Encoding.PEM, Encoding.DER)
        ]
    assert {Pin.from_bytes(file) for file in files} == {pin_of(key)}


def ec_private_key(point: bytes | None) -> bytes:
    """A P-256 key in the form of RFC 5915, with its public point as given, or without it."""
    key = private_key("p-256")
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    number = key.private_numbers().private_value.to_bytes(32)
    curve = bytes.fromhex("a00a06082a8648ce3d030107")
    bits = b"" if point is None else tlv(0xA1, tlv(0x03, b"\0" + point))
    return tlv(0x30, tlv(0x02, b"\x01") + tlv(0x04, number) + curve + bits)


def tlv(tag: int, content: bytes) -> bytes:
    size = len(content)
    length = bytes([size]) if size < 0x80 else bytes([0x82, size >> 8, size & 0xFF])
    return bytes([tag]) + length + content


def test_an_ec_key_tells_the_form_of_its_point_or_has_none() -> None:
    key = private_key("p-256")
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    public = key.public_key()
    point = public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    assert Pin.from_private_key(ec_private_key(point)) == pin_of(key)
    assert Pin.from_private_key(ec_private_key(None)) == pin_of(key)
    compressed = public.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    hybrid = bytes([0x06 | point[-1] & 1]) + point[1:]
    for other in (compressed, hybrid):
        with pytest.raises(UnpinnableKey, match="not certain"):
            Pin.from_private_key(ec_private_key(other))


def test_a_key_that_is_incomplete_in_isolation_cannot_be_pinned() -> None:
    path = VECTORS / INHERITED
    with pytest.raises(UnpinnableKey, match=r"DSA key without domain parameters.*§2\.4.*pin the issuer's key"):
        Pin.from_certificate(path.read_bytes())
    with pytest.raises(UnpinnableKey, match="DSA key without domain parameters"):
        Pin.from_public_key((VECTORS / "asymmetric/DER_Serialization/dsa_public_key_no_params.der").read_bytes())


@pytest.mark.parametrize("parameters", [b"", b"\x05\x00"], ids=["absent", "null"])
@pytest.mark.parametrize("oid", ["06072a8648ce380401", "06072a8648ce3d0201"], ids=["dsa", "ec"])
def test_inherited_parameters_are_absent_or_null(oid: str, parameters: bytes) -> None:
    der = tlv(0x30, tlv(0x30, bytes.fromhex(oid) + parameters) + tlv(0x03, b"\0\x04\x41"))
    with pytest.raises(UnpinnableKey, match=r"without (domain|curve) parameters"):
        Pin.from_spki(der)


SPKI = tlv(0x30, tlv(0x30, bytes.fromhex("06032b6570")) + tlv(0x03, b"\0" + bytes(32)))  # an Ed25519 key


# RFC 5280 §4.1: version, serialNumber, signature, issuer, validity, subject, subjectPublicKeyInfo
TBS = [tlv(0xA0, b"\x02\x01\x02"), b"\x02\x01\x01", *[tlv(0x30, b"\x05\x00")] * 4, SPKI]


# RFC 2986 §4.1: version, subject, subjectPKInfo, attributes
INFO = [b"\x02\x01\x00", tlv(0x30, b""), SPKI, tlv(0xA0, b"")]


def signed(fields: list[bytes]) -> bytes:
    return tlv(0x30, tlv(0x30, b"".join(fields)) + tlv(0x30, b"") + tlv(0x03, b"\0"))


def test_a_certificate_of_the_first_version_has_no_version() -> None:
    expected = Pin(hashlib.sha256(SPKI).digest())
    assert Pin.from_certificate(signed(TBS)) == Pin.from_bytes(signed(TBS)) == expected
    assert Pin.from_certificate(signed(TBS[1:])) == Pin.from_bytes(signed(TBS[1:])) == expected
    assert Pin.from_csr(signed(INFO)) == Pin.from_bytes(signed(INFO)) == expected


@pytest.mark.parametrize("position", range(len(TBS)))
@pytest.mark.parametrize("wrong", [b"\x31\x00", b""], ids=["other", "missing"])
def test_every_field_of_a_certificate_has_its_tag(position: int, wrong: bytes) -> None:
    fields = [*TBS[:position], wrong, *TBS[position + 1 :]]
    if fields == [b"", *TBS[1:]]:
        return  # the version is optional
    with pytest.raises(UnpinnableKey, match=r"this is not a (certificate|public key)"):
        Pin.from_certificate(signed(fields))


@pytest.mark.parametrize("position", range(3))
def test_every_field_of_a_csr_has_its_tag(position: int) -> None:
    with pytest.raises(UnpinnableKey, match="this is not a certificate signing request"):
        Pin.from_csr(signed([*INFO[:position], b"\x31\x00", *INFO[position + 1 :]]))


@pytest.mark.parametrize(
    ("der", "message"),
    [
        (b"\x31" + SPKI[1:], "not a public key"),
        (tlv(0x30, b""), "not a public key"),
        (tlv(0x30, tlv(0x30, b"") + tlv(0x03, b"\0")), "not a public key"),
        (tlv(0x30, tlv(0x30, b"\x05\x00") + tlv(0x03, b"\0")), "not a public key"),
        (tlv(0x30, tlv(0x30, bytes.fromhex("06032b6570")) + tlv(0x04, b"\0")), "not a public key"),
        (SPKI + b"\0", "bytes follow"),
        (tlv(0x30, SPKI[2:] + b"\x05\x00"), "bytes follow"),
        (SPKI[:-1], "cut off"),
    ],
)
def test_a_public_key_is_one_subject_public_key_info(der: bytes, message: str) -> None:
    assert Pin.from_spki(SPKI).digest == hashlib.sha256(SPKI).digest()
    with pytest.raises(UnpinnableKey, match=message):
        Pin.from_spki(der)


def test_a_chain_passes_over_what_cannot_be_pinned() -> None:
    inherited = (VECTORS / INHERITED).read_bytes()
    leaf, root = (certificate(algorithm).public_bytes(Encoding.DER) for algorithm in ("p-256", "ed25519"))
    assert chain_pins([leaf, inherited, b"", root]) == (pin_of(private_key("p-256")), pin_of(private_key("ed25519")))
    assert chain_pins([]) == ()


# -- the text of a pin ------------------------------------------------------------------------------------------------


digests = st.binary(min_size=32, max_size=32)


_STRICT = re.compile(r"[A-Za-z0-9+/]{43}=")


@given(digests)
def test_the_text_round_trips(digest: bytes) -> None:
    pin = Pin(digest)
    assert str(pin) == base64.b64encode(digest).decode()
    assert Pin.from_base64(str(pin)) == pin
    assert eval(repr(pin), {"Pin": Pin}) == pin
    assert pickle.loads(pickle.dumps(pin)) == pin


@given(
    st.one_of(
        st.text(max_size=60),
        st.from_regex(r"[A-Za-z0-9+/=_\- \n]{0,50}", fullmatch=True),
        st.from_regex(r"[A-Za-z0-9+/]{41,44}={0,3}\n?", fullmatch=True),
    )
)
def test_nothing_but_padded_base64_of_32_bytes_is_a_pin(text: str) -> None:
    if _STRICT.fullmatch(text):
        assert Pin.from_base64(text).digest == base64.b64decode(text)
    else:
        with pytest.raises(ValueError, match=r"not padded standard base64|not the 32 of a SHA-256 pin"):
            Pin.from_base64(text)


def test_unused_bits_are_accepted_and_written_as_zero() -> None:
    assert str(Pin.from_base64("Z" * 43 + "=")) == "Z" * 42 + "Y="


def test_pins_are_values() -> None:
    low, high = Pin(bytes(32)), Pin(bytes(31) + b"\x01")
    assert low < high
    assert len({low, Pin(bytes(32)), high}) == 2
    with pytest.raises(ValueError, match="32 bytes, not 31"):
        Pin(bytes(31))
