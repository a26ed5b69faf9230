"""The signed pin files of two families of mobile SDKs.

The signed content was read in their sources:

- Wultra's, https://github.com/wultra/ssl-pinning-ios (``Model/GetFingerprintsResponse.swift``) and
  https://github.com/wultra/ssl-pinning-android (``model/GetFingerprintResponse.kt``): ECDSA on P-256 with SHA-256 over
  ``name&fingerprint&expires``. The README of their tool swaps the last two, but no SDK accepts that.
- ssl-pinning's, https://github.com/ssl-pinning (``android-sdk``, ``apple-sdk``, and the server ``ssl-pinning``): RSA
  PKCS #1 v1.5 with SHA-512 over ``payload`` in the canonical form of RFC 8785.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256, SHA512
from cryptography.x509.oid import NameOID

from dynpin.hosts import KnownPinnedHost
from dynpin.report import rfc3339

from .export import check_host
from .keys import key_type

__all__ = ["SIGNED_FORMATS", "export_ssl_pinning", "export_wultra"]

SIGNED_FORMATS = ("wultra", "ssl-pinning")

# apple-sdk (crypto/SignatureVerifier.swift) supports public keys of these sizes, and of 1024 bits.
_RSA_BITS = (2048, 4096)


def export_wultra(certificates: Iterable[bytes], key: object, *, now: float) -> str:
    """The certificate file for Wultra's SDKs: each certificate is pinned until it expires.

    The SDKs look for a certificate by the common name in its subject, not by the requested host. They keep a
    certificate until it expires, so the next one can be added before it is deployed.

    Args:
        certificates: each leaf, DER.
        key: the private key that signs, an object of cryptography.
        now: seconds since the epoch, UTC.

    Raises:
        ValueError: for a key of another type; without a certificate; or for a certificate that has expired, cannot be
            read, or has no common name.
    """
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError(  # noqa: TRY004 - the kind of key is a user's input
            f"the signing key is {_kind(key)}, and Wultra's SDKs verify EC P-256 alone. Make one:  "
            "openssl ecparam -name prime256v1 -genkey | openssl pkcs8 -topk8 -out signing.pem"
        )
    fingerprints = [_fingerprint(der, key, now) for der in dict.fromkeys(certificates)]
    if not fingerprints:
        raise ValueError("Wultra's SDKs pin certificates, and none of these files has one")
    return _text({"fingerprints": fingerprints})


def _fingerprint(der: bytes, key: ec.EllipticCurvePrivateKey, now: float) -> dict[str, object]:
    try:
        certificate = x509.load_der_x509_certificate(der)
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        expires = int(certificate.not_valid_after_utc.timestamp())
    except (ValueError, x509.InvalidVersion) as error:
        raise ValueError(f"a certificate cannot be read: {error}") from None
    if len(names) != 1:
        raise ValueError(
            f"the certificate {certificate.serial_number:x} has {len(names)} common names in its subject, and Wultra's "
            "SDKs need exactly one: request a certificate with a common name"
        )
    name = str(names[0].value)
    if expires <= now:
        raise ValueError(f"the certificate of {name} expired on {rfc3339(expires)}: the SDKs would ignore it")
    fingerprint = base64.b64encode(hashlib.sha256(der).digest()).decode("ascii")
    signature = key.sign(f"{name}&{fingerprint}&{expires}".encode(), _ecdsa())
    return {"name": name, "fingerprint": fingerprint, "expires": expires, "signature": _base64(signature)}


def _ecdsa() -> ec.ECDSA:
    """Deterministic signatures (RFC 6979), if cryptography is 43 or newer and OpenSSL is 3.2 or newer."""
    try:
        return ec.ECDSA(SHA256(), deterministic_signing=True)
    except (TypeError, UnsupportedAlgorithm):
        return ec.ECDSA(SHA256())


def export_ssl_pinning(entries: Iterable[KnownPinnedHost], key: object, *, now: float) -> str:
    """The list of keys for ssl-pinning's SDKs; :meth:`dynpin.clientstore.PinStore.follow` reads it too.

    Args:
        entries: the hosts, each with its pins and their expiry.
        key: the private key that signs, an object of cryptography.
        now: seconds since the epoch, UTC: the ``date`` of each key.

    Raises:
        ValueError: for a key of another type; or for an entry without a pin, without a future expiry, or with a host
            that is not a name.
        ModuleNotFoundError: without rfc8785, which is in the extra ``recovery``.
    """
    import rfc8785  # noqa: PLC0415 - the other formats do without it

    if not isinstance(key, rsa.RSAPrivateKey) or key.key_size not in _RSA_BITS:
        raise ValueError(
            f"the signing key is {_kind(key)}, and ssl-pinning's SDKs verify RSA of 2048 or 4096 bits alone. Make "
            "one:  openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:4096 -aes256 -out signing.pem"
        )
    payload = {"keys": [each for entry in entries for each in _keys(entry, int(now))]}
    if not payload["keys"]:
        raise ValueError("there is no pin to sign, and the SDKs refuse an empty list")
    signature = key.sign(rfc8785.dumps(payload), padding.PKCS1v15(), SHA512())
    return _text({"payload": payload, "signature": _base64(signature)})


def _keys(entry: KnownPinnedHost, now: int) -> list[dict[str, str | int]]:
    if not entry.pins:
        raise ValueError(f"there is no pin for {entry.host}")
    if entry.expires_at is None or int(entry.expires_at) <= now:
        raise ValueError(f"the pins of {entry.host} need an expiry in the future")
    check_host(entry, wildcards=True)
    # A pattern of OkHttp's CertificatePinner: two asterisks stand for the host itself and any subdomain.
    pattern = f"**.{entry.host}" if entry.include_subdomains else entry.host
    common: dict[str, str | int] = {"fqdn": entry.host, "expire": int(entry.expires_at) - now, "date": rfc3339(now)}
    return [{"domainName": pattern, "key": str(pin), **common} for pin in entry.pins]


def _kind(key: object) -> str:
    public = getattr(key, "public_key", None)
    return f"of the kind {key_type(public())}" if callable(public) else "none"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _text(content: object) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
