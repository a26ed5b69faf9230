"""The Pin: the SHA-256 fingerprint of a SubjectPublicKeyInfo (RFC 7469 §2.4)."""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from dynpin.counts import counted
from dynpin.errors import UnpinnableKey
from dynpin.files import read_file
from dynpin.spki import certificate_spki, check_spki, csr_spki, elements

# `cryptography` is imported only to read a bare key, since its import takes as long as the rest of the protocol.
# Certificates and CSRs do not need it, and clients read only certificates.

__all__ = ["Pin", "certificates", "chain_pins", "pins_without_certificate"]

# RFC 7468 §2: the first and last line of a PEM block. A byte order mark may come first, since editors on Windows write
# one, also in the middle of joined files. OpenSSL ignores it too.
_PEM_BOUNDARY = re.compile(rb"^(?:\xef\xbb\xbf)?[ \t]*-----(BEGIN|END) ([A-Z0-9 ]+)-----[ \t\r]*$", re.MULTILINE)
_BLANK_LINE = re.compile(rb"\n[ \t\r]*\n")

_ASK_FOR_PUBLIC = "give the certificate, the CSR or the public key instead (openssl pkey -in KEY -pubout)"


@dataclass(frozen=True, order=True, slots=True)
class Pin:
    """The SHA-256 of a SubjectPublicKeyInfo: 32 bytes, written as 44 characters of base64 (RFC 7469 §2.4).

    Frozen, hashable and ordered. ``str(pin)`` is the base64 text, as curl, wget2 and browsers write it.

    Raises:
        ValueError: if `digest` is not 32 bytes.
    """

    digest: bytes

    def __post_init__(self) -> None:
        if len(self.digest) != 32:
            raise ValueError(f"a SHA-256 pin has 32 bytes, not {len(self.digest)}")

    def __str__(self) -> str:
        return base64.b64encode(self.digest).decode("ascii")

    def __repr__(self) -> str:
        return f"Pin.from_base64({str(self)!r})"

    @classmethod
    def from_base64(cls, text: str) -> Pin:
        """The pin of a text: padded standard base64 of 32 bytes, with nothing around it.

        Unused bits that are not zero are accepted, as all known decoders do; ``str`` writes them as zero.

        Raises:
            ValueError: if it is another text; the message says what is wrong.
        """
        try:
            digest = binascii.a2b_base64(text, strict_mode=True)
        except ValueError as error:
            raise ValueError(f"{text[:80]!r} is not padded standard base64: {error}") from None
        if len(digest) != 32 or len(text) != 44:
            raise ValueError(f"{text[:80]!r} holds {counted(len(digest), 'byte')}, not the 32 of a SHA-256 pin")
        return cls(digest)

    @classmethod
    def from_spki(cls, der: bytes) -> Pin:
        """The pin of a DER SubjectPublicKeyInfo, hashed without re-encoding.

        Raises:
            UnpinnableKey: if the bytes are another structure, or the key is incomplete (RFC 7469 §2.4).
        """
        return cls(hashlib.sha256(check_spki(der)).digest())

    @classmethod
    def from_certificate(cls, data: bytes | str) -> Pin:
        """The pin of a certificate, PEM or DER; a bundle gives its first certificate.

        Raises:
            UnpinnableKey: if there is no certificate in `data`, or its key cannot be pinned.
        """
        der = _der(data, "certificate")
        return cls(hashlib.sha256(certificate_spki(der)).digest())

    @classmethod
    def from_csr(cls, data: bytes | str) -> Pin:
        """The pin of a certificate signing request, PEM or DER.

        Raises:
            UnpinnableKey: if there is no CSR in `data`, or its key cannot be pinned.
        """
        return cls(hashlib.sha256(csr_spki(_der(data, "certificate signing request"))).digest())

    @classmethod
    def from_public_key(cls, data: bytes | str) -> Pin:
        """The pin of a public key, PEM or DER: a SubjectPublicKeyInfo, or the bare RSAPublicKey of PKCS #1.

        Raises:
            UnpinnableKey: if there is no public key in `data`, or it cannot be pinned.
        """
        der = _der(data, "public key")
        if _tags(der) == [0x02, 0x02]:
            # PKCS #1 has no SubjectPublicKeyInfo; for rsaEncryption there is exactly one form (RFC 3279 §2.3.1).
            from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
                Encoding,
                PublicFormat,
                load_der_public_key,
            )

            try:
                key = load_der_public_key(der)
            except ValueError as error:
                raise UnpinnableKey(f"the RSA public key does not load: {error}") from None
            der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return cls.from_spki(der)

    @classmethod
    def from_private_key(cls, data: bytes | str) -> Pin:
        """The pin of the public half of a private key, PEM or DER, unencrypted.

        A private key does not always say how its public half is encoded in the certificate. If more than one form is in
        use (RSA-PSS, compressed points, explicit curves), this raises, since a guess could be a wrong pin.

        Raises:
            UnpinnableKey: if there is no private key in `data`, it is encrypted, or the pin is not certain.
        """
        return cls.from_spki(_private_key_spki(_der(data, "private key")))

    @classmethod
    def from_bytes(cls, data: bytes) -> Pin:
        """The pin of the certificate, CSR or key in `data`, PEM or DER; see :meth:`from_file`.

        Raises:
            UnpinnableKey: if nothing in it can be pinned.
        """
        if _is_pem(data):
            return _from_pem(data)
        make = _MAKERS[_kind(data)]
        return make(data)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Pin:
        """The pin of a PEM or DER file: a certificate, a CSR, a public or a private key.

        A bundle gives its first certificate, even if a key comes before it.

        Raises:
            UnpinnableKey: if nothing in the file can be pinned; the message names the file.
            OSError: if the file cannot be read.
        """
        try:
            return cls.from_bytes(read_file(path))
        except UnpinnableKey as error:
            raise UnpinnableKey(f"{os.fspath(path)}: {error}") from None


def chain_pins(chain: Iterable[bytes]) -> tuple[Pin, ...]:
    """The pins of a validated chain of DER certificates, in its order, leaf first.

    RFC 7469 §2.6: a certificate whose key is incomplete in isolation cannot be pinned, so it is skipped.
    """
    pins: list[Pin] = []
    for der in chain:
        try:
            pins.append(Pin(hashlib.sha256(certificate_spki(der)).digest()))
        except UnpinnableKey:
            continue
    return tuple(pins)


def certificates(data: bytes) -> tuple[bytes, ...]:
    """The certificates, DER, of a PEM bundle, in its order, or of a DER file; empty for bare keys.

    Raises:
        UnpinnableKey: if a PEM block is damaged, or `data` is neither PEM nor DER.
    """
    if _is_pem(data):
        return tuple(der for label, der in _pem_blocks(data) if label in _LABELS["certificate"])
    return (data,) if _kind(data) == "certificate" else ()


def pins_without_certificate(data: bytes) -> frozenset[Pin]:
    """The pins of all CSRs and bare keys of a PEM file whose pin is certain; empty for DER.

    Raises:
        UnpinnableKey: if a PEM block is damaged.
    """
    found: set[Pin] = set()
    for label, der in _pem_blocks(data) if _is_pem(data) else ():
        for kind, make in _MAKERS.items():
            if kind != "certificate" and label in _LABELS[kind]:
                with contextlib.suppress(UnpinnableKey):
                    found.add(make(der))
    return frozenset(found)


_LABELS: dict[str, tuple[bytes, ...]] = {
    "certificate": (b"CERTIFICATE", b"X509 CERTIFICATE", b"TRUSTED CERTIFICATE"),
    "certificate signing request": (b"CERTIFICATE REQUEST", b"NEW CERTIFICATE REQUEST"),
    "public key": (b"PUBLIC KEY", b"RSA PUBLIC KEY"),
    "private key": (b"PRIVATE KEY", b"RSA PRIVATE KEY", b"EC PRIVATE KEY", b"DSA PRIVATE KEY"),
}
# If a file holds several kinds, this order decides: a deployed certificate before a key.
_MAKERS: dict[str, Callable[[bytes], Pin]] = {
    "certificate": Pin.from_certificate,
    "certificate signing request": Pin.from_csr,
    "public key": Pin.from_public_key,
    "private key": Pin.from_private_key,
}


# The advice for key files in formats of other programs.
_FOREIGN = {
    "PKCS7": "take the certificates out of it first (openssl pkcs7 -in FILE -print_certs)",
    "CMS": "take the certificates out of it first (openssl pkcs7 -in FILE -print_certs)",
    "PKCS #7": "take the certificates out of it first (openssl pkcs7 -inform DER -in FILE -print_certs)",
    "PKCS #12": "take the certificate out of it first (openssl pkcs12 -in FILE -clcerts -nokeys)",
    "OPENSSH PRIVATE KEY": "write its public key as PEM first (ssh-keygen -e -m PKCS8 -f FILE)",
    "SSH public key": "write it as PEM first (ssh-keygen -e -m PKCS8 -f FILE)",
}


def _is_pem(data: bytes) -> bool:
    # A DER certificate may contain PEM text in a field. Data that begins as a SEQUENCE of more than 127 bytes is DER,
    # and is never searched for PEM.
    return b"-----BEGIN " in data and not (data[:1] == b"\x30" and data[1:2] >= b"\x80")


def _pem_blocks(data: bytes) -> list[tuple[bytes, bytes]]:
    """The PEM blocks in order, as (label, DER).

    A damaged block raises: without it, another certificate would be the first one of the file.
    """
    blocks: list[tuple[bytes, bytes]] = []
    begin: re.Match[bytes] | None = None
    for line in _PEM_BOUNDARY.finditer(data):
        if line[1] == b"BEGIN" and begin is None:
            begin = line
        elif line[1] == b"END" and begin is not None and line[2] == begin[2]:
            blocks.append(_pem_block(begin[2], data[begin.end() : line.start()]))
            begin = None
        else:
            label = line[2] if begin is None else begin[2]
            raise _damaged(label, "its BEGIN and END lines do not match")
    if begin is not None:
        raise _damaged(begin[2], "its END line is missing")
    return blocks


def _pem_block(label: bytes, body: bytes) -> tuple[bytes, bytes]:
    text = body.strip()
    if b":" in text:  # RFC 1421 §4.4: the headers of old files, up to a blank line
        if b"Proc-Type: 4,ENCRYPTED" in text:
            return b"ENCRYPTED PRIVATE KEY", b""
        text = _BLANK_LINE.split(text, maxsplit=1)[-1]
    try:
        return label, base64.b64decode(b"".join(text.split()), validate=True)
    except ValueError as error:
        raise _damaged(label, str(error)) from None


def _damaged(label: bytes, why: str) -> UnpinnableKey:
    return UnpinnableKey(f"the PEM block {label.decode('ascii')} is damaged: {why}")


def _from_pem(data: bytes) -> Pin:
    blocks = _pem_blocks(data)
    for kind, make in _MAKERS.items():
        for label, der in blocks:
            if label in _LABELS[kind]:
                return make(der)
    raise _nothing_found(blocks, "nothing that can be pinned")


def _der(data: bytes | str, kind: str) -> bytes:
    """The DER of the first PEM block of this kind, or `data` itself if it is not PEM."""
    raw = data.encode("utf-8", "replace") if isinstance(data, str) else data
    if not _is_pem(raw):
        return raw
    blocks = _pem_blocks(raw)
    for label, der in blocks:
        if label in _LABELS[kind]:
            return der
    raise _nothing_found(blocks, f"no {kind}")


def _nothing_found(blocks: list[tuple[bytes, bytes]], what: str) -> UnpinnableKey:
    labels = [label.decode("ascii") for label, _ in blocks]
    if "ENCRYPTED PRIVATE KEY" in labels:
        return UnpinnableKey(f"the private key is encrypted; {_ASK_FOR_PUBLIC}")
    for label in labels:
        if label in _FOREIGN:
            return _foreign(label)
    return UnpinnableKey(f"{what} in the PEM (found: {', '.join(labels) or 'no complete block'})")


def _foreign(form: str) -> UnpinnableKey:
    return UnpinnableKey(f"no pin can be made from {form}; {_FOREIGN[form]}")


def _tags(der: bytes) -> list[int]:
    """The tags inside the outermost structure, which are enough to recognise the kind of key file."""
    outer = next(elements(der), None)
    return [] if outer is None or outer.tag != 0x30 else [found.tag for found in elements(der, outer)]


def _kind(der: bytes) -> str:
    if der.startswith((b"ssh-", b"ecdsa-sha2-", b"sk-")):
        raise _foreign("SSH public key")
    if der[:1] != b"\x30":
        raise UnpinnableKey("neither PEM nor DER: there is no certificate, CSR or key in it")
    match _tags(der):
        case [0x30, 0x30, 0x03]:
            outer = next(elements(der))
            info = next(elements(der, outer))
            # RFC 2986 §4.1 against RFC 5280 §4.1: a CSR has three or four fields, a certificate six or more.
            count = sum(1 for _ in elements(der, info))
            return "certificate" if count >= 6 else "certificate signing request"
        case [0x30, 0x03] | [0x02, 0x02]:
            return "public key"
        case [0x02, 0x30, 0x04, *_] | [0x02, 0x04, *_] | [0x02, 0x02, 0x02, *_]:
            return "private key"
        case [0x30, 0x04]:
            raise UnpinnableKey(f"the private key is encrypted; {_ASK_FOR_PUBLIC}")
        case [0x06, 0xA0]:
            raise _foreign("PKCS #7")
        case [0x02, 0x30] | [0x02, 0x30, 0x30]:
            raise _foreign("PKCS #12")
        case _:
            raise UnpinnableKey("neither PEM nor the DER of a certificate, a CSR, a public key or a private key")


def _private_key_spki(der: bytes) -> bytes:
    if _tags(der) == [0x30, 0x04]:
        raise UnpinnableKey(f"the private key is encrypted; {_ASK_FOR_PUBLIC}")
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
        Encoding,
        PublicFormat,
        load_der_private_key,
    )

    parameters = _private_parameters(der)
    try:
        key = load_der_private_key(der, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UnpinnableKey(f"the pin of this private key is not certain ({error}); {_ASK_FOR_PUBLIC}") from None
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    # Both halves must name the algorithm in the same bytes. If not, cryptography has written another kind of key.
    if parameters not in public:
        raise UnpinnableKey(
            "the pin of this private key is not certain: its parameters (RSA-PSS, an explicit curve) may be "
            f"written in more than one way; {_ASK_FOR_PUBLIC}"
        )
    if isinstance(key, ec.EllipticCurvePrivateKey):
        # SEC 1 §2.3.3: 04 X Y, or compressed 02 X or 03 X. If it has no public point, assume 04.
        point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        if point not in der and point[1 : (len(point) + 1) // 2] in der:
            raise UnpinnableKey(
                "the pin of this private key is not certain: it holds its public point in compressed form; "
                f"{_ASK_FOR_PUBLIC}"
            )
    return public


def _private_parameters(der: bytes) -> bytes:
    """The bytes that name the algorithm of the key. The public half must have the same bytes."""
    fields = list(elements(der, next(elements(der), None)))
    match [found.tag for found in fields]:
        case [0x02, 0x30, 0x04, *_]:  # PKCS #8, RFC 5208 §5: privateKeyAlgorithm
            return der[fields[1].start : fields[1].end]
        case [0x02, 0x04, 0xA0, *_]:  # SEC 1, RFC 5915 §3: parameters [0]
            return der[fields[2].content : fields[2].end]
        case _:  # PKCS #1 and the old DSA form have only one encoding
            return b""
