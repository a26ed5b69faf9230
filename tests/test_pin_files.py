"""RFC 7469 §2.4: the pin of a file, whatever kind it is; the openssl command finds the same."""

from __future__ import annotations

import base64
import codecs
import hashlib
import os
import re
import shutil
import ssl
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    pkcs7,
    pkcs12,
)
from hypothesis import given
from hypothesis import strategies as st

from dynpin import Pin, UnpinnableKey
from dynpin.pins import certificates
from dynpin.spki import certificate_spki

from .keys import (
    INHERITED,
    VECTORS,
    Key,
    certificate,
    der_of,
    each_key,
    pin_of,
    private_key,
    private_pem,
    spki,
    vector_keys,
)


def certificate_pem(algorithm: str) -> bytes:
    return certificate(algorithm).public_bytes(Encoding.PEM)


# -- from_file --------------------------------------------------------------------------------------------------------


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
    csr = next(key["csr"] for key in vector_keys() if key["id"] == "p-521")
    public = next(key["public_key"] for key in vector_keys() if key["id"] == "ed25519")
    data = private_pem("rsa").decode() + public + csr
    assert str(Pin.from_bytes(data.encode())) == "im4QMVqnV8RKaTGpp5DXOAvk8c8WutB5QjCLcb/NVr4="
    assert str(Pin.from_public_key(data)) == "/kR3dvkcKtmOwvcRfNI9njFA1rEgo1tLULzSxQDsDTA="
    assert Pin.from_private_key(data) == pin_of(private_key("rsa"))


def test_a_damaged_first_certificate_does_not_make_the_second_one_first() -> None:
    """A pin of the issuer instead of the leaf would trust every certificate of that issuer."""
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
    """Each of these lines may begin a block: looking for the end of each again would take hours."""
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
    """What is not a key, and what is said of it."""
    pem, der = certificate_pem("p-256"), certificate("p-256").public_bytes(Encoding.DER)
    public = private_key("p-256").public_key()
    certificates = [certificate("p-256")]
    ssh_private = private_key("ed25519").private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    crl = (VECTORS / "x509/PKITS_data/crls/GoodCACRL.crl").read_bytes()
    return {
        "empty": (b"", "neither PEM nor DER"),
        "prose": (b"this is not a key", "neither PEM nor DER"),
        "begins as PEM": (b"-----BEGIN CERTIFICATE-----\n", "END line is missing"),
        "only an end": (b"-----END CERTIFICATE-----\n-----BEGIN CERTIFICATE-----\n", "do not match"),
        "not base64": (pem.replace(b"MII", b"M*I"), "PEM block CERTIFICATE is damaged"),
        "base64 of nothing": (b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", "this is not a certificate"),
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


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_without_a_writer_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="nothing writes to this pipe: start its writer first"):
        Pin.from_file(tmp_path / "pipe")


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


# -- the openssl command as a witness ---------------------------------------------------------------------------------


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
def test_openssl_finds_the_same_pin() -> None:
    """In each tenth certificate that it loads, and in each that is told of above. `make stress` takes them all."""
    files = certificate_files()
    told = [VECTORS / name for name in (*REFUSED, *NOT_REENCODED)]
    assert_openssl_finds_the_same_pin([*told, *(path for path in files[::10] if path not in told)], at_least=40)


def assert_openssl_finds_the_same_pin(files: Sequence[Path], at_least: int) -> None:
    with ThreadPoolExecutor(2 * (os.cpu_count() or 1)) as pool:
        witnesses = [witness for witness in pool.map(ask, files) if witness.loads]
    assert len(witnesses) > at_least

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
