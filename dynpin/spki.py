"""The SubjectPublicKeyInfo, taken as it stands (RFC 7469 §2.4).

A pin is the hash of the bytes in the certificate. Decoding the key and encoding it again gives other bytes for
RSA-PSS keys, compressed points and explicit curve parameters, and raises for curves that a library does not
know; so the bytes are sliced out, by the few rules of DER that lead to them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from dynpin.errors import UnpinnableKey

__all__ = ["certificate_spki", "check_spki", "csr_spki", "elements"]

_INTEGER, _BIT_STRING, _NULL, _OID, _SEQUENCE, _VERSION = 0x02, 0x03, 0x05, 0x06, 0x30, 0xA0

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
    """The elements inside a structure, in order; of the whole of `der` when none is named.

    Raises:
        UnpinnableKey: where the bytes are not DER.
    """
    at, limit = (0, len(der)) if within is None else (within.content, within.end)
    while at < limit:
        found = _element(der, at, limit)
        yield found
        at = found.end


def _child(der: bytes, parent: Element, position: int, tag: int, what: str) -> Element:
    for index, found in enumerate(elements(der, parent)):
        if index == position:
            if found.tag == tag:
                return found
            break
    raise UnpinnableKey(f"this is no {what}: the structure is another")


def _outer(der: bytes, what: str) -> Element:
    outer = _element(der, 0, len(der))
    if outer.tag != _SEQUENCE:
        raise UnpinnableKey(f"this is no {what}: it does not begin with a SEQUENCE")
    return outer


def certificate_spki(der: bytes) -> bytes:
    """The SubjectPublicKeyInfo of a DER certificate, byte for byte as it stands there.

    Raises:
        UnpinnableKey: where the bytes are no certificate, or the key is incomplete without its issuer's.
    """
    tbs = _child(der, _outer(der, "certificate"), 0, _SEQUENCE, "certificate")
    # RFC 5280 §4.1: version [0] OPTIONAL, serialNumber, signature, issuer, validity, subject, subjectPublicKeyInfo
    first = _element(der, tbs.content, tbs.end)
    offset = 1 if first.tag == _VERSION else 0
    _child(der, tbs, offset, _INTEGER, "certificate")
    _child(der, tbs, offset + 1, _SEQUENCE, "certificate")
    spki = _child(der, tbs, offset + 5, _SEQUENCE, "certificate")
    return check_spki(der[spki.start : spki.end])


def csr_spki(der: bytes) -> bytes:
    """The SubjectPublicKeyInfo of a DER certificate signing request (PKCS #10), as it stands there.

    Raises:
        UnpinnableKey: where the bytes are no CSR, or the key is incomplete.
    """
    # RFC 2986 §4.1: certificationRequestInfo { version, subject, subjectPKInfo, attributes }
    info = _child(der, _outer(der, "certificate signing request"), 0, _SEQUENCE, "certificate signing request")
    _child(der, info, 0, _INTEGER, "certificate signing request")
    spki = _child(der, info, 2, _SEQUENCE, "certificate signing request")
    return check_spki(der[spki.start : spki.end])


def check_spki(der: bytes) -> bytes:
    """`der` itself, when it is one complete SubjectPublicKeyInfo.

    Raises:
        UnpinnableKey: where it is another structure, or where the key is incomplete when taken in isolation:
            RFC 7469 §2.4 names a DSA key without domain parameters.
    """
    outer = _outer(der, "public key")
    if outer.end != len(der):
        raise UnpinnableKey("bytes follow the public key: the file holds more than one structure")
    algorithm = _child(der, outer, 0, _SEQUENCE, "public key")
    _child(der, outer, 1, _BIT_STRING, "public key")
    oid = _child(der, algorithm, 0, _OID, "public key")
    name = der[oid.content : oid.end]
    parameters = [found.tag for found in elements(der, algorithm)][1:]
    if name in (_OID_DSA, _OID_EC) and parameters in ([], [_NULL]):
        kind = "DSA key without domain" if name == _OID_DSA else "EC key without curve"
        raise UnpinnableKey(
            f"a {kind} parameters cannot be pinned (RFC 7469 §2.4): it inherits them from its issuer; "
            "pin the issuer's key, or issue the certificate with parameters"
        )
    return der
