"""Backup keys: made, written down, and counted by key type (RFC 7469 §4.3)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
    load_pem_private_key,
    load_pem_public_key,
)
from cryptography.x509.oid import NameOID

from dynpin.errors import UnpinnableKey
from dynpin.hosts import canonical_host
from dynpin.pins import Pin

__all__ = ["KEY_TYPES", "BackupKey", "KeyType", "key_type", "missing_backups", "new_key", "write_key"]

KeyType = Literal["ec-p256", "ec-p384", "rsa-2048", "rsa-3072", "rsa-4096", "ed25519"]
KEY_TYPES: tuple[KeyType, ...] = get_args(KeyType)

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

_MAKERS: Mapping[KeyType, Callable[[], PrivateKey]] = {
    "ec-p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ec-p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "rsa-2048": lambda: rsa.generate_private_key(65537, 2048),
    "rsa-3072": lambda: rsa.generate_private_key(65537, 3072),
    "rsa-4096": lambda: rsa.generate_private_key(65537, 4096),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
}


@dataclass(frozen=True, slots=True)
class BackupKey:
    """A new key in the forms in which it is kept: the private half is encrypted, the others may be published."""

    kind: KeyType
    private_pem: bytes
    public_pem: bytes
    csr_pem: bytes
    pin: Pin


def new_key(kind: KeyType, hosts: Sequence[str], passphrase: bytes) -> BackupKey:
    """A new key for these hosts, with the CSR that a CA will want on the day it is needed.

    Raises:
        ValueError: without a host or a passphrase.
        InvalidHost: for a name that cannot be made canonical.
    """
    if not hosts:
        raise ValueError("a backup key is made for a host: its CSR names it")
    if not passphrase:
        raise ValueError("the private half of a backup key is kept encrypted: a passphrase is needed")
    names = [canonical_host(host) for host in hosts]
    key = _MAKERS[kind]()
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return BackupKey(
        kind=kind,
        private_pem=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(passphrase)),
        public_pem=public,
        csr_pem=_csr(key, names),
        pin=Pin.from_public_key(public),
    )


def _csr(key: PrivateKey, names: Sequence[str]) -> bytes:
    # RFC 5280: a common name has 64 characters at most; CAs read the alternative names.
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])] if len(names[0]) <= 64 else [])
    alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
    builder = x509.CertificateSigningRequestBuilder(subject).add_extension(alternatives, critical=False)
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return builder.sign(key, None).public_bytes(Encoding.PEM)
    strong = isinstance(key, ec.EllipticCurvePrivateKey) and key.key_size > 256
    return builder.sign(key, SHA384() if strong else SHA256()).public_bytes(Encoding.PEM)


def write_key(key: BackupKey, folder: Path, name: str) -> dict[str, Path]:
    """Write the three files into `folder`; nothing that exists is overwritten.

    Raises:
        FileExistsError: where a file of that name is there already; then none is written.
        OSError: where the folder cannot be written.
    """
    files = {
        "private": (folder / f"{name}.key.pem", key.private_pem, 0o600),
        "public": (folder / f"{name}.pub.pem", key.public_pem, 0o644),
        "csr": (folder / f"{name}.csr.pem", key.csr_pem, 0o644),
    }
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file; the keys want a folder")
    folder.mkdir(parents=True, exist_ok=True)
    for path, _, _ in files.values():
        if path.exists():
            raise FileExistsError(f"{path} exists; a key is never overwritten: choose another --name or folder")
    for path, content, mode in files.values():
        # O_EXCL, since the check above is no lock.
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
    return {form: path for form, (path, _, _) in files.items()}


def key_type(data: bytes) -> str:
    """The type of the key in a certificate, CSR, public or unencrypted private key, PEM or DER: ``"rsa-3072"``.

    Raises:
        UnpinnableKey: where no key is found in `data`.
    """
    for load in _LOADERS:
        try:
            return _name(load(data))
        except (ValueError, TypeError):
            continue
    raise UnpinnableKey("no certificate, CSR or key was found, or the private key is encrypted")


_LOADERS: tuple[Callable[[bytes], object], ...] = (
    lambda data: x509.load_pem_x509_certificate(data).public_key(),
    lambda data: x509.load_der_x509_certificate(data).public_key(),
    lambda data: x509.load_pem_x509_csr(data).public_key(),
    lambda data: x509.load_der_x509_csr(data).public_key(),
    load_pem_public_key,
    load_der_public_key,
    lambda data: load_pem_private_key(data, None).public_key(),
    lambda data: load_der_private_key(data, None).public_key(),
)


def _name(key: object) -> str:
    match key:
        case ec.EllipticCurvePublicKey():
            return {"secp256r1": "ec-p256", "secp384r1": "ec-p384"}.get(key.curve.name, f"ec-{key.curve.name}")
        case rsa.RSAPublicKey():
            return f"rsa-{key.key_size}"
        case ed25519.Ed25519PublicKey():
            return "ed25519"
        case ed448.Ed448PublicKey():
            return "ed448"
        case _:
            return type(key).__name__.removesuffix("PublicKey").lower()


def missing_backups(deployed: Iterable[str], backups: Iterable[str]) -> tuple[str, ...]:
    """The families of key (``"ec"``, ``"rsa"``, ``"ed25519"``) that are deployed and have no backup.

    A server that offers an RSA and an EC certificate needs a backup of each: clients differ in what they can use.
    """
    kept = {_family(kind) for kind in backups}
    return tuple(dict.fromkeys(_family(kind) for kind in deployed if _family(kind) not in kept))


def _family(kind: str) -> str:
    return kind.partition("-")[0]
