"""The known CAs: the public ones, and the operator's own."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from cryptography import x509

from .certificates import Decoded, decode
from .diagnosis import RootKind
from .signatures import Signatures

__all__ = ["Roots"]


class Roots:
    """The known CAs: the public ones, and the operator's own.

    Args:
        own: the operator's root certificates, PEM, one after the other.
        public: the public root certificates, PEM; None for those of `certifi`.
        as_of: the date of these stores, in seconds since the epoch, UTC; None for now.
    """

    def __init__(self, own: bytes = b"", public: bytes | None = None, as_of: float | None = None) -> None:
        self._as_of = time.time() if as_of is None else as_of
        self._own = _by_subject(own)
        self._public = _public_roots() if public is None else _by_subject(public)

    def kind(self, chain: Sequence[Decoded], before: RootKind | None, signatures: Signatures) -> RootKind:
        """The kind of a validated chain: ``"own"``, ``"public"``, ``"retired"`` (public in the past) or ``"unknown"``.

        `before` is the kind that an earlier judgement found, if there was one. An unknown chain does not become public
        when it expires, and a public root does not become unknown when it leaves the stores.
        """
        last = chain[-1]
        if _ends_in(last, self._own, signatures):
            return "own"
        if _ends_in(last, self._public, signatures):
            return "public"
        if before in ("public", "unknown"):
            return "retired" if before == "public" else "unknown"
        # An old chain may end in a root that browsers no longer trust. The marks of a public CA are enough for it.
        # A valid chain must end in a current root, since anybody can copy such marks.
        expired = any(one.not_after is not None and one.not_after < self._as_of for one in chain)
        if expired and chain[0].has_public_marks and all(one.has_public_marks for one in chain[1:-1]):
            return "retired"
        return "unknown"


def _by_subject(bundle: bytes) -> dict[bytes, list[Decoded]]:
    roots: dict[bytes, list[Decoded]] = {}
    for block in bundle.split(b"-----BEGIN CERTIFICATE-----")[1:]:
        root = decode("-----BEGIN CERTIFICATE-----" + block.decode("ascii", "replace"))
        if root.certificate is not None:
            roots.setdefault(_bytes(root.subject_name), []).append(root)
    return roots


@lru_cache(maxsize=1)
def _public_roots() -> dict[bytes, list[Decoded]]:
    import certifi  # noqa: PLC0415 - read when the first report is judged

    return _by_subject(Path(certifi.where()).read_bytes())


def _ends_in(last: Decoded, roots: dict[bytes, list[Decoded]], signatures: Signatures) -> bool:
    if last.certificate is None:
        return False
    same_key: Iterable[Decoded] = roots.get(_bytes(last.subject_name), ())
    if any(root.pin is not None and root.pin == last.pin for root in same_key):
        return True
    return any(signatures.is_issued_by(last, root) for root in roots.get(_bytes(last.issuer_name), ()))


def _bytes(name: x509.Name | None) -> bytes:
    return b"" if name is None else name.public_bytes()
