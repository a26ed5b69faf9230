"""Backup keys: create them, write them, and compare their types with those of the deployed keys (RFC 7469 §4.3)."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Literal, get_args

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from dynpin.counts import counted
from dynpin.errors import InvalidHost
from dynpin.hosts import canonical_host, is_ip_literal
from dynpin.middleware.policy import read_file
from dynpin.pins import Pin

__all__ = [
    "KEY_TYPES",
    "LONGEST_PASSPHRASE",
    "SHORTEST_PASSPHRASE",
    "BackupKey",
    "KeyType",
    "check_passphrase",
    "key_files",
    "key_type",
    "missing_backups",
    "new_files",
    "new_key",
    "pin_of",
    "read_private_key",
    "write_key",
]

KeyType = Literal["ec-p256", "ec-p384", "rsa-2048", "rsa-3072", "rsa-4096", "ed25519"]
KEY_TYPES: tuple[KeyType, ...] = get_args(KeyType)

# In characters. An attacker with a copy of the key file can try any number of passphrases.
SHORTEST_PASSPHRASE = 12
# In bytes. OpenSSL's command line takes 1023; anything longer is more likely the wrong file than a passphrase.
LONGEST_PASSPHRASE = 512

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

_MAKERS: Mapping[KeyType, Callable[[], PrivateKey]] = {
    "ec-p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ec-p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "rsa-2048": lambda: rsa.generate_private_key(65537, 2048),
    "rsa-3072": lambda: rsa.generate_private_key(65537, 3072),
    "rsa-4096": lambda: rsa.generate_private_key(65537, 4096),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
}


# RFC 5890 §2.3.1, and underscores, as closed networks have them. The last label has a letter: this is no old form of an
# address. An asterisk is the whole first label (RFC 6125 §6.4.3).
_CERTIFIABLE = re.compile(
    r"(?:\*\.)?(?:[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?\.)*(?=[0-9-]*[a-z])[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
)


@dataclass(frozen=True, slots=True)
class BackupKey:
    """A new key in the forms in which it is stored: the private half is encrypted, the others may be published."""

    kind: KeyType
    private_pem: bytes
    public_pem: bytes
    csr_pem: bytes
    pin: Pin

    def contents(self, folder: Path, name: str) -> dict[Path, tuple[bytes, int]]:
        """The files of the key, each with its content and mode."""
        files = key_files(folder, name)
        return {
            files["private"]: (self.private_pem, 0o600),
            files["public"]: (self.public_pem, 0o644),
            files["csr"]: (self.csr_pem, 0o644),
        }


def check_passphrase(passphrase: bytes) -> None:
    """Refuse a passphrase that is too short, too long, or that cannot be typed.

    Raises:
        ValueError: with the reason.
    """
    if len(passphrase) > LONGEST_PASSPHRASE:
        raise ValueError(f"the passphrase is longer than {LONGEST_PASSPHRASE} bytes: is it the right file?")
    try:
        text = passphrase.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("the passphrase is not UTF-8 text, and could not be typed at a prompt") from None
    # In OpenSSL a NUL would end it, and a UTF-16 file is full of NULs.
    if not text.isprintable():
        raise ValueError("the passphrase has a character in it that could not be typed at a prompt")
    if len(text) < SHORTEST_PASSPHRASE:
        raise ValueError(
            f"the passphrase has {counted(len(text), 'character')}. It needs {SHORTEST_PASSPHRASE} or more: a person "
            "who finds the key file can try any number of passphrases"
        )


def new_key(kind: KeyType, hosts: Sequence[str], passphrase: bytes) -> BackupKey:
    """Make a new key for these hosts, with the CSR that a CA needs when the key is used.

    Args:
        kind: the type of the key.
        hosts: DNS names and IP addresses; each becomes a subjectAltName of its own kind (RFC 5280 §4.2.1.6).
        passphrase: encrypts the private half.

    Raises:
        ValueError: without a host, or for a passphrase that :func:`check_passphrase` refuses.
        InvalidHost: for a name that no certificate can have.
    """
    if not hosts:
        raise ValueError("a backup key is made for a host: its CSR names it")
    check_passphrase(passphrase)
    names = list(dict.fromkeys(map(_certifiable, hosts)))
    key = _MAKERS[kind]()
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return BackupKey(
        kind=kind,
        private_pem=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(passphrase)),
        public_pem=public,
        csr_pem=_csr(key, names),
        pin=Pin.from_public_key(public),
    )


def _certifiable(host: str) -> str:
    name = canonical_host(host)
    if not (is_ip_literal(name) or _CERTIFIABLE.fullmatch(name)):
        raise InvalidHost(f"{host} is not a name for a certificate: give one such as www.example.com or *.example.com")
    return name


def _csr(key: PrivateKey, names: Sequence[str]) -> bytes:
    # RFC 5280: a common name has at most 64 characters. CAs read the alternative names.
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])] if len(names[0]) <= 64 else [])
    alternatives = x509.SubjectAlternativeName(list(map(_alternative, names)))
    builder = x509.CertificateSigningRequestBuilder(subject).add_extension(alternatives, critical=False)
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return builder.sign(key, None).public_bytes(Encoding.PEM)
    strong = isinstance(key, ec.EllipticCurvePrivateKey) and key.key_size > 256
    return builder.sign(key, SHA384() if strong else SHA256()).public_bytes(Encoding.PEM)


def _alternative(name: str) -> x509.GeneralName:
    return x509.IPAddress(ip_address(name.strip("[]"))) if is_ip_literal(name) else x509.DNSName(name)


def key_files(folder: Path, name: str) -> dict[str, Path]:
    """The files of a backup key: its private half, its public half, its CSR."""
    endings = {"private": "key", "public": "pub", "csr": "csr"}
    return {form: folder / f"{name}.{ending}.pem" for form, ending in endings.items()}


def write_key(key: BackupKey, folder: Path, name: str) -> dict[str, Path]:
    """Write the three files into `folder`, all or none. Overwrites nothing.

    Raises:
        ValueError: if the name is not one of a file.
        FileExistsError: if a file with one of the names exists.
        OSError: if the folder cannot be written.
    """
    if Path(name).name != name or not name.isprintable():
        raise ValueError(f"{name!r} is not the start of a file name: name the folder with --out")
    with new_files(key.contents(folder, name)):
        return key_files(folder, name)


@contextmanager
def new_files(files: Mapping[Path, tuple[bytes, int]]) -> Generator[None]:
    """Write new files, each with its content and mode. An exception inside the block removes them again.

    Raises:
        FileExistsError: if one of them exists.
        OSError: if a folder cannot be written.
    """
    with ExitStack() as undo:
        for path, (content, mode) in files.items():
            if os.path.lexists(path.parent) and not path.parent.is_dir():
                raise FileExistsError(f"{path.parent} is a file or a broken link; a folder is needed here")
            for folder in [each for each in (path.parent, *path.parent.parents) if not each.exists()][::-1]:
                folder.mkdir(0o755)  # a person who may write to it can replace the keys
                undo.callback(folder.rmdir)
            try:
                handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            except FileExistsError:
                raise FileExistsError(f"{path} exists, and is not overwritten: choose another name or folder") from None
            undo.callback(path.unlink)
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        yield
        undo.pop_all()


def read_private_key(file: Path, passphrase: Callable[[], bytes]) -> PrivateKeyTypes:
    """The private half in a PEM file, as an object of cryptography.

    Args:
        file: in PKCS #8, or the older forms of OpenSSL.
        passphrase: called if the file is encrypted.

    Raises:
        ValueError: if the file has no such key, or if the passphrase is wrong.
        OSError: if it cannot be read.
    """
    data = read_file(file)
    why = "it is not a private key in PEM"
    try:
        try:
            return load_pem_private_key(data, None)
        except TypeError:  # it is encrypted
            why = "the passphrase is wrong, or the file is damaged"
            return load_pem_private_key(data, passphrase())
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError(f"{file} cannot be opened: {why}") from None


def pin_of(key: PrivateKeyTypes) -> Pin:
    """The pin of a private key's public half."""
    return Pin.from_public_key(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def key_type(key: object) -> str:
    """The type of a public key, such as ``"rsa-3072"``."""
    match key:
        case ec.EllipticCurvePublicKey():
            return {"secp256r1": "ec-p256", "secp384r1": "ec-p384"}.get(key.curve.name, f"ec-{key.curve.name}")
        case rsa.RSAPublicKey():
            return f"rsa-{key.key_size}"
        case ed25519.Ed25519PublicKey():
            return "ed25519"
        case ed448.Ed448PublicKey():
            return "ed448"
        case None:
            return "unknown"
        case _:
            return type(key).__name__.removesuffix("PublicKey").lower()


def missing_backups(deployed: Iterable[str], backups: Iterable[str]) -> tuple[str, ...]:
    """The families of deployed keys (``"ec"``, ``"rsa"``, ``"ed25519"``) that have no backup.

    A server with an RSA and an EC certificate needs a backup for each, since some clients support only one of them.
    """
    kept = {_family(kind) for kind in backups}
    if "unknown" in kept:  # a bare pin may be for a key of any type
        return ()
    needed = dict.fromkeys(map(_family, deployed))
    return tuple(family for family in needed if family not in {*kept, "unknown"})


def _family(kind: str) -> str:
    return kind.partition("-")[0]
