"""Verify which certificate signed which: only keys that a CA may use, each signature once, and few for one report."""

from __future__ import annotations

from collections import OrderedDict

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from .certificates import Decoded

__all__ = ["Signatures"]

# The keys that the CA/Browser Forum's Baseline Requirements (§6.1.5) allow, and Ed25519, which private CAs use.
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_RSA_BITS = range(2048, 8193)
# OpenSSL limits only the exponent of long keys. A short key with a long exponent makes verification very slow.
_MAX_EXPONENT_BITS = 64


class Signatures:
    """Verifies the signatures of certificates that anybody may have made.

    Args:
        limit: how many signatures are verified for one report; an honest report needs about five.
        remembered: how many results are cached, by certificate and key.
    """

    def __init__(self, limit: int = 60, remembered: int = 10_000) -> None:
        self.limit = limit
        self.verified = 0
        self._remembered = remembered
        self._known: OrderedDict[tuple[str, bytes], bool | None] = OrderedDict()

    def begin(self) -> None:
        """Begin with the next report, which gets the whole limit."""
        self.verified = 0

    def is_issued_by(self, certificate: Decoded, issuer: Decoded) -> bool | None:
        """Whether the issuer's key signed the certificate; None if this was not, or cannot be, verified."""
        below, above = certificate.issuer_name, issuer.subject_name
        if below is None or above is None:
            return None
        if below != above:
            return False
        if issuer.pin is None:
            return None
        # The fingerprint covers the signature too.
        asked = (certificate.fingerprint, issuer.pin.digest)
        if asked in self._known:
            self._known.move_to_end(asked)
            return self._known[asked]
        if not _may_sign(issuer):
            return None
        if self.verified >= self.limit:
            return None
        self.verified += 1
        found = _verified(certificate, issuer)
        self._known[asked] = found
        if len(self._known) > self._remembered:
            self._known.popitem(last=False)
        return found


def _may_sign(issuer: Decoded) -> bool:
    if issuer.certificate is None:
        return False
    try:
        key = issuer.certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return False
    match key:
        case rsa.RSAPublicKey():
            return key.key_size in _RSA_BITS and key.public_numbers().e.bit_length() <= _MAX_EXPONENT_BITS
        case ec.EllipticCurvePublicKey():
            return isinstance(key.curve, _CURVES)
        case _:
            return isinstance(key, ed25519.Ed25519PublicKey)


def _verified(certificate: Decoded, issuer: Decoded) -> bool | None:
    if certificate.certificate is None or issuer.certificate is None:
        return None
    try:
        certificate.certificate.verify_directly_issued_by(issuer.certificate)
    except InvalidSignature:
        return False
    except UnsupportedAlgorithm:
        return None
    except (ValueError, TypeError):
        return False  # the key and the signature are of different kinds
    return True
