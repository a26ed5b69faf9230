"""RFC 7469 §2.4: a pin is the SHA-256 of the SubjectPublicKeyInfo as it stands, whatever file it is read from."""

from __future__ import annotations

import base64
import codecs
import hashlib
import json
import os
import pickle
import re
import shutil
import ssl
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypedDict

import cryptography_vectors
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    pkcs7,
    pkcs12,
)
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from dynpin import Pin, UnpinnableKey
from dynpin.pins import certificates, chain_pins
from dynpin.spki import certificate_spki

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


def _keys() -> list[Key]:
    loaded: dict[str, list[Key]] = json.loads((Path(__file__).parent / "vectors/spki.json").read_text())
    return loaded["keys"]


each_key = pytest.mark.parametrize("key", _keys(), ids=lambda key: key["id"])


def der_of(pem: str) -> bytes:
    return base64.b64decode("".join(line for line in pem.splitlines() if not line.startswith("-----")))


# -- the keys of vectors/spki.json -------------------------------------------------------------------------------------


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


# -- every algorithm, every file ---------------------------------------------------------------------------------------

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey
ALGORITHMS = ["rsa", "p-256", "p-384", "p-521", "secp256k1", "brainpoolP256r1", "ed25519", "ed448", "dsa"]


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


def certificate_pem(algorithm: str) -> bytes:
    return certificate(algorithm).public_bytes(Encoding.PEM)


def private_pem(
    algorithm: str,
    form: PrivateFormat = PrivateFormat.PKCS8,
    encryption: KeySerializationEncryption | None = None,
    encoding: Encoding = Encoding.PEM,
) -> bytes:
    return private_key(algorithm).private_bytes(encoding, form, encryption or NoEncryption())


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


# RFC 7469 §2.4: "If the certificate's Subject Public Key Info is incomplete when taken in isolation, such as when
# holding a DSA key without domain parameters, a public key pin cannot be formed."
INHERITED = "x509/PKITS_data/certs/DSAParametersInheritedCACert.crt"


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
    with pytest.raises(UnpinnableKey, match=r"this is no (certificate|public key)"):
        Pin.from_certificate(signed(fields))


@pytest.mark.parametrize("position", range(3))
def test_every_field_of_a_csr_has_its_tag(position: int) -> None:
    with pytest.raises(UnpinnableKey, match="this is no certificate signing request"):
        Pin.from_csr(signed([*INFO[:position], b"\x31\x00", *INFO[position + 1 :]]))


@pytest.mark.parametrize(
    ("der", "message"),
    [
        (b"\x31" + SPKI[1:], "no public key"),
        (tlv(0x30, b""), "no public key"),
        (tlv(0x30, tlv(0x30, b"") + tlv(0x03, b"\0")), "no public key"),
        (tlv(0x30, tlv(0x30, b"\x05\x00") + tlv(0x03, b"\0")), "no public key"),
        (tlv(0x30, tlv(0x30, bytes.fromhex("06032b6570")) + tlv(0x04, b"\0")), "no public key"),
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


# -- from_file ---------------------------------------------------------------------------------------------------------


def bundles() -> dict[str, bytes]:
    """Files that hold several things, the P-256 certificate as the first certificate of each."""
    leaf, issuer, root = (certificate_pem(algorithm) for algorithm in ("p-256", "rsa", "ed25519"))
    key = private_pem("rsa")
    return {
        "chain": leaf + issuer + root,
        "key before its chain": key + leaf + issuer,
        "key after its chain": leaf + issuer + key,
        "encrypted key and chain": private_pem("rsa", encryption=BestAvailableEncryption(b"x")) + leaf,
        "parameters of the key first": b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
        + leaf,
        "text around, as openssl pkcs12 writes it": b"Bag Attributes\n  friendlyName: x\nsubject=CN = b\n"
        + leaf
        + issuer,
        "prose that mentions PEM": b"# begins with -----BEGIN CERTIFICATE----- like this\n" + leaf,
        "indented": b"".join(b"    " + line + b"\n" for line in leaf.splitlines()) + issuer,
        "CRLF": (leaf + issuer).replace(b"\n", b"\r\n"),
        "no newline at the end": leaf.rstrip(),
        "byte order marks, as of files of Windows put together": codecs.BOM_UTF8 + leaf + codecs.BOM_UTF8 + issuer,
        "one line of base64": re.sub(rb"(?<=[\w+/=])\n(?=[\w+/=])", b"", leaf),
        "headers of RFC 1421": leaf.replace(b"-----\n", b"-----\nComment: a,\n  b\nX-Note: c\n\n", 1) + issuer,
        "X509 label": leaf.replace(b"CERTIFICATE", b"X509 CERTIFICATE"),
        "DER": certificate("p-256").public_bytes(Encoding.DER),
        "DER and a newline": certificate("p-256").public_bytes(Encoding.DER) + b"\n",
    }


@pytest.mark.parametrize("name", list(bundles()))
def test_a_bundle_gives_its_first_certificate(name: str, tmp_path: Path) -> None:
    file = tmp_path / "bundle.pem"
    file.write_bytes(bundles()[name])
    assert Pin.from_file(file) == pin_of(private_key("p-256"))
    assert Pin.from_file(str(file)) == Pin.from_certificate(file.read_bytes())


def test_a_bundle_with_byte_order_marks_is_read_as_openssl_reads_it(tmp_path: Path) -> None:
    bundle = b"".join(codecs.BOM_UTF8 + certificate_pem(algorithm) for algorithm in ("p-256", "ed25519"))
    file = tmp_path / "bundle.pem"
    file.write_bytes(bundle)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(file)
    assert context.cert_store_stats()["x509"] == len(certificates(bundle)) == 2
    assert Pin.from_certificate(bundle.decode()) == pin_of(private_key("p-256"))


def test_without_a_certificate_a_csr_stands_before_a_key() -> None:
    csr = next(key["csr"] for key in _keys() if key["id"] == "p-521")
    public = next(key["public_key"] for key in _keys() if key["id"] == "ed25519")
    data = private_pem("rsa").decode() + public + csr
    assert str(Pin.from_bytes(data.encode())) == "im4QMVqnV8RKaTGpp5DXOAvk8c8WutB5QjCLcb/NVr4="
    assert str(Pin.from_public_key(data)) == "/kR3dvkcKtmOwvcRfNI9njFA1rEgo1tLULzSxQDsDTA="
    assert Pin.from_private_key(data) == pin_of(private_key("rsa"))


def test_a_damaged_first_certificate_does_not_make_the_second_one_first() -> None:
    """Whoever pinned the issuer instead of the leaf would trust every certificate of that issuer."""
    leaf, issuer = certificate_pem("p-256"), certificate_pem("rsa")
    begin, end = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"
    for damaged in (
        leaf.replace(end, b""),
        leaf.replace(begin, b""),
        leaf.replace(end, b"-----END CERTIFICATE REQUEST-----"),
        leaf.replace(b"M", b"!", 1),
        leaf.replace(b"M", b"M****", 1),  # a lenient decoder drops what is not of the alphabet
        leaf[:200] + b"\n",
    ):
        with pytest.raises(UnpinnableKey, match="PEM block CERTIFICATE is damaged"):
            Pin.from_bytes(damaged + issuer)


def test_text_inside_a_certificate_is_no_certificate() -> None:
    der = certificate("p-256", comment=certificate_pem("rsa")).public_bytes(Encoding.DER)
    assert b"-----BEGIN CERTIFICATE-----" in der
    assert Pin.from_certificate(der) == Pin.from_bytes(der) == pin_of(private_key("p-256"))


def test_reading_pem_takes_linear_time() -> None:
    """Each of these lines may begin a block: looking for the end of each anew would take hours."""
    with pytest.raises(UnpinnableKey, match="damaged"):
        Pin.from_bytes(b"-----BEGIN CERTIFICATE-----\n" * 100_000)
    with pytest.raises(UnpinnableKey, match="no complete block"):
        Pin.from_bytes(b"-----BEGIN " + b" \t" * 2_000_000 + b"\n" + b"-----BEGIN A A" * 200_000)


def openssl_trusted_certificate() -> bytes:
    # openssl x509 -trustout: the certificate, and what it is trusted for behind it (X509_CERT_AUX)
    der = certificate("p-256").public_bytes(Encoding.DER) + bytes.fromhex("300c300a06082b06010505070301")
    body = base64.encodebytes(der)
    return b"-----BEGIN TRUSTED CERTIFICATE-----\n" + body + b"-----END TRUSTED CERTIFICATE-----\n"


def test_the_auxiliary_data_of_a_trusted_certificate_is_no_part_of_it() -> None:
    assert Pin.from_bytes(openssl_trusted_certificate()) == pin_of(private_key("p-256"))


@pytest.mark.parametrize(
    ("encoding", "form"),
    [
        (Encoding.PEM, PrivateFormat.PKCS8),
        (Encoding.DER, PrivateFormat.PKCS8),
        (Encoding.PEM, PrivateFormat.TraditionalOpenSSL),
    ],
    ids=["pkcs8", "pkcs8-der", "traditional"],
)
def test_an_encrypted_key_says_so(encoding: Encoding, form: PrivateFormat, tmp_path: Path) -> None:
    data = private_pem("p-256", form, BestAvailableEncryption(b"password"), encoding)
    (tmp_path / "key").write_bytes(data)
    for read in (Pin.from_private_key, Pin.from_bytes):
        with pytest.raises(UnpinnableKey, match=r"is encrypted; .*openssl pkey -in KEY -pubout"):
            read(data)
    with pytest.raises(UnpinnableKey, match=re.escape(str(tmp_path / "key"))):
        Pin.from_file(tmp_path / "key")


def unreadable() -> dict[str, tuple[bytes, str]]:
    """What is no key, and what is said of it."""
    pem, der = certificate_pem("p-256"), certificate("p-256").public_bytes(Encoding.DER)
    public = private_key("p-256").public_key()
    certificates = [certificate("p-256")]
    ssh_private = private_key("ed25519").private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    crl = (VECTORS / "x509/PKITS_data/crls/GoodCACRL.crl").read_bytes()
    return {
        "empty": (b"", "neither PEM nor DER"),
        "prose": (b"this is no key", "neither PEM nor DER"),
        "begins as PEM": (b"-----BEGIN CERTIFICATE-----\n", "END line is missing"),
        "only an end": (b"-----END CERTIFICATE-----\n-----BEGIN CERTIFICATE-----\n", "do not match"),
        "not base64": (pem.replace(b"MII", b"M*I"), "PEM block CERTIFICATE is damaged"),
        "base64 of nothing": (b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", "this is no certificate"),
        "cut off DER": (der[:-1], "cut off"),
        "cut off early": (der[:3], "malformed"),
        "one byte": (b"\x30", "cut off"),
        "indefinite length": (b"\x30\x80" + der, "indefinite"),
        "length of five bytes": (b"\x30\x85\0\0\0\0\1" + der, "malformed"),
        "two public keys": (spki(private_key("p-256")) * 2, "more than one structure"),
        "PKCS #7 PEM": (
            pkcs7.serialize_certificates(certificates, Encoding.PEM),
            "openssl pkcs7 -in FILE -print_certs",
        ),
        "PKCS #7 DER": (pkcs7.serialize_certificates(certificates, Encoding.DER), "openssl pkcs7 -inform DER"),
        "PKCS #12": (
            pkcs12.serialize_key_and_certificates(None, None, certificate("p-256"), None, NoEncryption()),
            "openssl pkcs12 -in FILE -clcerts -nokeys",
        ),
        "SSH public key": (public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH), "ssh-keygen -e -m PKCS8"),
        "SSH private key": (ssh_private, "ssh-keygen -e -m PKCS8"),
        "CRL PEM": (b"-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n", r"found: X509 CRL"),
        "CRL DER": (crl, "this is no"),
        "a SEQUENCE of nothing": (b"\x30\x00", "neither PEM nor the DER of"),
        "PKCS #1 of no RSA key": (b"\x30\x04\x02\x00\x02\x00", "does not load"),
    }


@pytest.mark.parametrize("name", list(unreadable()))
def test_what_is_no_key_is_refused_in_words(name: str, tmp_path: Path) -> None:
    data, message = unreadable()[name]
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(UnpinnableKey, match=message):
        Pin.from_file(tmp_path / "file")


@pytest.mark.parametrize(
    ("make", "other"),
    [
        (Pin.from_certificate, "csr"),
        (Pin.from_certificate, "public_key"),
        (Pin.from_csr, "certificate"),
        (Pin.from_public_key, "certificate"),
        (Pin.from_public_key, "private_key"),
        (Pin.from_private_key, "certificate"),
        (Pin.from_private_key, "public_key"),
    ],
)
@each_key
def test_one_kind_is_not_taken_for_another(key: Key, make: Callable[[bytes | str], Pin], other: str) -> None:
    files = {"certificate": key["certificate"], "csr": key["csr"], "public_key": key["public_key"]}
    pem = files.get(other, key["private_key"])
    with pytest.raises(UnpinnableKey, match=r"no (certificate|public key|private key)"):
        make(pem)
    with pytest.raises(UnpinnableKey):
        make(der_of(pem))


def test_a_file_that_is_not_there_is_an_oserror(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Pin.from_file(tmp_path / "absent.pem")


@given(st.binary(max_size=200), st.integers(0, 400), st.booleans())
def test_any_bytes_give_a_pin_or_an_unpinnable_key(noise: bytes, at: int, keep: bool) -> None:
    der = certificate("p-256").public_bytes(Encoding.DER)
    data = der[:at] + noise + der[at + (0 if keep else len(noise)) :]
    for make in (Pin.from_bytes, Pin.from_certificate, Pin.from_csr, Pin.from_public_key, Pin.from_private_key):
        try:
            pin = make(data)
        except UnpinnableKey:
            continue
        assert len(pin.digest) == 32


# -- the text of a pin -------------------------------------------------------------------------------------------------

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


# -- the openssl command as a witness ----------------------------------------------------------------------------------

# Certificates that openssl loads and dynpin cannot pin, each with the reason that it gives.
REFUSED = {
    INHERITED: "DSA key without domain parameters",
    "x509/PKITS_data/certs/ValidDSAParameterInheritanceTest5EE.crt": "DSA key without domain parameters",
}
# Certificates of which `openssl x509 -pubkey` cannot be the witness: it decodes the key and encodes it again. What is
# right is what stands in the certificate (RFC 7469 §2.4 by RFC 5280 §4.1), where `openssl asn1parse` finds it.
NOT_REENCODED = {
    # The modulus has no leading zero, so that as an INTEGER it is negative; openssl writes it as a positive one.
    "x509/badasn1time.pem",
    # The algorithm is unknown to openssl (GOST R 34.10-2001, and one that was made up): it has no key to write.
    "x509/e-trust.ru.der",
    "x509/custom/unsupported_subject_public_key_info.pem",
}


class Witness(NamedTuple):
    path: Path
    loads: bool
    public_key: bytes | None


def openssl(*arguments: str | os.PathLike[str]) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["openssl", *arguments], capture_output=True, check=False)


def ask(path: Path) -> Witness:
    shown = openssl("x509", "-in", path, "-noout", "-pubkey")
    if shown.returncode == 0:
        return Witness(path, True, der_of(shown.stdout.decode("ascii")))
    return Witness(path, openssl("x509", "-in", path, "-noout").returncode == 0, None)


def spki_found_by_asn1parse(path: Path) -> bytes:
    form = "PEM" if path.suffix == ".pem" else "DER"
    der = openssl("asn1parse", "-inform", form, "-in", path, "-noout", "-out", "/dev/stdout").stdout
    lines = openssl("asn1parse", "-inform", form, "-in", path).stdout.decode("latin-1").splitlines()
    fields = [line for line in lines if ":d=2 " in line]
    # version [0] is optional; then serialNumber, signature, issuer, validity, subject, subjectPublicKeyInfo
    line = fields[6 if "cont [ 0 ]" in fields[0] else 5]
    found = re.match(r" *(\d+):d=2 +hl=(\d+) +l= *(\d+)", line)
    assert found is not None
    start, header, length = map(int, found.groups())
    return der[start : start + header + length]


def certificate_files() -> list[Path]:
    """Every file of the cryptography_vectors package that may be a certificate, PEM or DER."""

    def may_be(path: Path) -> bool:
        data = path.read_bytes()
        return b"CERTIFICATE-----" in data or (data[:1] == b"\x30" and path.suffix in (".crt", ".cer", ".der"))

    return sorted(path for path in VECTORS.rglob("*") if path.is_file() and may_be(path))


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed: apt-get install openssl")
def test_openssl_finds_the_same_pin_in_every_certificate_that_it_loads() -> None:
    with ThreadPoolExecutor(2 * (os.cpu_count() or 1)) as pool:
        witnesses = [witness for witness in pool.map(ask, certificate_files()) if witness.loads]
    assert len(witnesses) > 500

    refused: dict[str, str] = {}
    wrong: list[str] = []
    for path, _, public_key in witnesses:
        name = path.relative_to(VECTORS).as_posix()
        try:
            pin = Pin.from_file(path)
        except UnpinnableKey as error:
            refused[name] = str(error)
            continue
        expected = spki_found_by_asn1parse(path) if name in NOT_REENCODED else public_key
        if expected is None or pin.digest != hashlib.sha256(expected).digest():
            wrong.append(name)
    assert wrong == []
    assert refused.keys() == REFUSED.keys()
    assert [name for name, reason in REFUSED.items() if reason not in refused[name]] == []


def test_the_witness_of_what_is_not_reencoded() -> None:
    """The bytes themselves, so that the rule holds where openssl is not installed."""
    der = der_of((VECTORS / "x509/badasn1time.pem").read_text())
    found = certificate_spki(der)
    assert found in der
    assert b"\x02\x81\x80\xc7" in found  # 128 bytes of modulus, its highest bit set: no zero before it
