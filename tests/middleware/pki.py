"""Authorities, chains and roots of the tests of chains."""

from __future__ import annotations

from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from dynpin.lab.certificates import Authority, Certificate, KeyPair

HOST = "bank.test"


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(each.public_bytes(Encoding.PEM) for each in certificates)


class Pki(NamedTuple):
    """One CA of two levels, and what it has issued; another CA beside it."""

    root: Authority
    intermediate: Authority
    leaf: Certificate
    spare: KeyPair
    other: Authority

    @property
    def whole(self) -> tuple[x509.Certificate, x509.Certificate, x509.Certificate]:
        """Leaf, intermediate and root."""
        return (*self.leaf.served, self.root.certificate)  # type: ignore[return-value] # served are two


LEAF = KeyPair("server", "bank")


def two_levels() -> Pki:
    root = Authority("Root")
    intermediate = root.intermediate("Intermediate")
    leaf = intermediate.issue(HOST, KeyPair("leaf", "bank"))
    return Pki(root, intermediate, leaf, KeyPair("spare", "bank"), Authority("Other root"))
