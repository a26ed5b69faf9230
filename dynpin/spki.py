"""Cut out the SubjectPublicKeyInfo without re-encoding it (RFC 7469 §2.4).

A pin is the hash of the bytes in the certificate. Decoding the key and encoding it again gives other bytes for
RSA-PSS keys, compressed points and explicit curve parameters, and raises for unknown curves. So this module reads
just enough DER to find the bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from dynpin.errors import UnpinnableKey

__all__ = ["certificate_spki", "check_spki", "csr_spki", "elements"]

_INTEGER, _BIT_STRING, _OID, _SEQUENCE, _VERSION = 0x02, 0x03, 0x06, 0x30, 0xA0
_NULL = b"\x05\x00"

# RFC 5280 §4.1: version [0] OPTIONAL, serialNumber, signature, issuer, validity, subject, subjectPublicKeyInfo
_CERTIFICATE = (_INTEGER, _SEQUENCE, _SEQUENCE, _SEQUENCE, _SEQUENCE, _SEQUENCE)
_VERSIONED_CERTIFICATE = (_VERSION, *_CERTIFICATE)
# RFC 2986 §4.1: version, subject, subjectPKInfo
_REQUEST = (_INTEGER, _SEQUENCE, _SEQUENCE)

_OID_DSA = bytes.fromhex("2a8648ce380401")  # 1.2.840.10040.4.1
_OID_EC = bytes.fromhex("2a8648ce3d0201")  # 1.2.840.10045.2.1 ecPublicKey


class Element(NamedTuple):
    """One tag-length-value of DER: where it starts, where its content starts, and where it ends."""

    tag: int
    start: int
    content: int
    end: int


def _element(der: bytes, at: int, limit: int) -> Element:
    if at + 2 > limit:
        raise UnpinnableKey("the DER ends in the middle of a structure: the file is cut off or not DER")
    tag, length, content = der[at], der[at + 1], at + 2
    if length >= 0x80:
        size = length & 0x7F
        if not 1 <= size <= 4 or content + size > limit:
            raise UnpinnableKey("a length in the DER is malformed or indefinite: the file is not DER")
        length = int.from_bytes(der[content : content + size])
        content += size
    if content + length > limit:
        raise UnpinnableKey("a structure in the DER is longer than the file: the file is cut off or not DER")
    return Element(tag, at, content, content + length)


def elements(der: bytes, within: Element | None = None) -> Iterator[Element]:
    """The elements inside a structure, in order; without `within`, those of `der` itself.

    Raises:
        UnpinnableKey: if the bytes are not DER.
    """
    at, limit = (0, len(der)) if within is None else (within.content, within.end)
    while at < limit:
        found = _element(der, at, limit)
        yield found
        at = found.end


def _field(der: bytes, at: int, limit: int, tag: int, what: str) -> tuple[int, int]:
    """The start and the end of the content of the field at `at`, which must have this tag.

    It must be fast: each handshake with a new certificate calls it a dozen times.
    """
    if at >= limit or der[at] != tag:
        raise UnpinnableKey(f"this is not a {what}: it has another structure")
    content = at + 2
    if content <= limit and der[at + 1] < 0x80 and content + der[at + 1] <= limit:
        return content, content + der[at + 1]
    found = _element(der, at, limit)
    return found.content, found.end


def certificate_spki(der: bytes) -> bytes:
    """The SubjectPublicKeyInfo of a DER certificate, byte for byte.

    Raises:
        UnpinnableKey: if the bytes are not a certificate, or the key is incomplete without that of its issuer.
    """
    content, end = _field(der, 0, len(der), _SEQUENCE, "certificate")
    start, limit = _field(der, content, end, _SEQUENCE, "certificate")
    has_version = start < limit and der[start] == _VERSION
    return check_spki(_last(der, start, limit, _VERSIONED_CERTIFICATE if has_version else _CERTIFICATE, "certificate"))


def csr_spki(der: bytes) -> bytes:
    """The SubjectPublicKeyInfo of a DER certificate signing request (PKCS #10), byte for byte.

    Raises:
        UnpinnableKey: if the bytes are not a CSR, or the key is incomplete.
    """
    what = "certificate signing request"
    content, end = _field(der, 0, len(der), _SEQUENCE, what)
    return check_spki(_last(der, *_field(der, content, end, _SEQUENCE, what), _REQUEST, what))


def _last(der: bytes, at: int, limit: int, tags: tuple[int, ...], what: str) -> bytes:
    """The last of the first fields of a structure. There must be one field for each tag, in this order."""
    start = at
    for tag in tags:
        start = at
        _, at = _field(der, at, limit, tag, what)
    return der[start:at]


def check_spki(der: bytes) -> bytes:
    """Return `der`, if it is one complete SubjectPublicKeyInfo.

    Raises:
        UnpinnableKey: if it is another structure, or the key is incomplete in isolation, such as a DSA key without
            domain parameters (RFC 7469 §2.4).
    """
    what = "public key"
    content, end = _field(der, 0, len(der), _SEQUENCE, what)
    algorithm, parameters_end = _field(der, content, end, _SEQUENCE, what)
    _, key_end = _field(der, parameters_end, end, _BIT_STRING, what)
    if not key_end == end == len(der):
        raise UnpinnableKey("bytes follow the public key: the file holds more than one structure")
    oid, oid_end = _field(der, algorithm, parameters_end, _OID, what)
    name = der[oid:oid_end]
    if name in (_OID_DSA, _OID_EC) and der[oid_end:parameters_end] in (b"", _NULL):
        kind = "DSA key without domain" if name == _OID_DSA else "EC key without curve"
        raise UnpinnableKey(
            f"a {kind} parameters cannot be pinned (RFC 7469 §2.4): it inherits them from its issuer; "
            "pin the issuer's key, or issue the certificate with parameters"
        )
    return der
