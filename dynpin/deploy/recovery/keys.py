"""The signing keys: Ed25519. The private halves are encrypted, except the two that a server uses automatically."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from securesystemslib.signer import CryptoSigner  # pyright: ignore[reportPrivateImportUsage]

from dynpin.errors import RecoveryError

from ..keys import read_private_key

__all__ = [
    "OFFLINE",
    "ONLINE",
    "ROLES",
    "key_file",
    "new_signers",
    "open_to_others",
    "pem_of",
    "read_signers",
    "with_keys",
]

# The roles. root signs the keys of the other roles; targets signs the list of pins; snapshot says which list is
# current; timestamp, with a short life, says that this is still true.
OFFLINE = ("root", "targets")
ONLINE = ("snapshot", "timestamp")
ROLES = (*OFFLINE, *ONLINE)


def new_signers(count: int) -> list[tuple[Ed25519PrivateKey, CryptoSigner]]:
    """New keys, each with its signer."""
    keys = [Ed25519PrivateKey.generate() for _ in range(count)]
    return [(key, CryptoSigner(key)) for key in keys]


def with_keys(signers: Iterable[CryptoSigner], keyids: Iterable[str]) -> list[CryptoSigner]:
    """Those of the signers that have one of these keys."""
    wanted = {*keyids}
    return [each for each in signers if each.public_key.keyid in wanted]


def key_file(folder: Path, role: str, number: int, version: int) -> Path:
    """The file of a private half; `version` is that of the first root with this key."""
    return folder / f"{role}-{number}.v{version}.key.pem"


def pem_of(key: Ed25519PrivateKey, passphrase: bytes | None) -> bytes:
    """The private half in PKCS #8, encrypted if there is a passphrase."""
    encryption = NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def open_to_others(keys: Path, files: Iterable[Path]) -> list[str]:
    """The private halves that other users of this machine can read or replace: one sentence each, with what to do.

    Args:
        keys: the folder of keys of the repository.
        files: the private halves.
    """
    if os.name != "posix":
        return []
    found = [
        f"other users of this machine can read {file}: chmod 600 {file}"
        for file in files
        if file.is_file() and file.stat().st_mode & 0o077
    ]
    if keys.is_dir() and keys.stat().st_mode & 0o022:
        found.append(f"other users of this machine can replace what is in {keys}: chmod 700 {keys}")
    return found


def read_signers(files: Iterable[Path], passphrase: Callable[[], bytes]) -> list[CryptoSigner]:
    """Read the keys in these files.

    Args:
        files: private halves, PEM.
        passphrase: called at the first encrypted file.

    Raises:
        RecoveryError: if a file is not such a key, or if the passphrase is wrong.
        OSError: if a file cannot be read.
    """
    signers: list[CryptoSigner] = []
    known = cache(passphrase)
    for file in files:
        try:
            key = read_private_key(file, known)
        except ValueError as error:
            raise RecoveryError(str(error)) from None
        if not isinstance(key, Ed25519PrivateKey):
            raise RecoveryError(f"{file} is not an Ed25519 key, as `dynpin recovery init` makes them")
        signers.append(CryptoSigner(key))
    return signers
