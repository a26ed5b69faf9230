"""The keys that sign: Ed25519, their private halves encrypted but for the two that a server uses by itself."""

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

# What a role signs: root the other roles' keys; targets the list of pins; snapshot which list is the present one;
# timestamp, with a short life, that this is still so.
OFFLINE = ("root", "targets")
ONLINE = ("snapshot", "timestamp")
ROLES = (*OFFLINE, *ONLINE)


def new_signers(count: int) -> list[tuple[Ed25519PrivateKey, CryptoSigner]]:
    """New keys, each with what signs by it."""
    keys = [Ed25519PrivateKey.generate() for _ in range(count)]
    return [(key, CryptoSigner(key)) for key in keys]


def with_keys(signers: Iterable[CryptoSigner], keyids: Iterable[str]) -> list[CryptoSigner]:
    """Those of the signers that have one of these keys."""
    wanted = {*keyids}
    return [each for each in signers if each.public_key.keyid in wanted]


def key_file(folder: Path, role: str, number: int, version: int) -> Path:
    """Where a private half is written; `version` is that of the first root that names it."""
    return folder / f"{role}-{number}.v{version}.key.pem"


def pem_of(key: Ed25519PrivateKey, passphrase: bytes | None) -> bytes:
    """The private half in PKCS #8, encrypted where there is a passphrase."""
    encryption = NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def open_to_others(keys: Path, files: Iterable[Path]) -> list[str]:
    """Which private halves other users of this machine can read or replace: a sentence each, with what to do.

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
    """The keys in these files.

    Args:
        files: private halves, PEM.
        passphrase: asked for the first time that a file is encrypted.

    Raises:
        RecoveryError: where a file is no such key, or the passphrase is not the one of the file.
        OSError: where it cannot be read.
    """
    signers: list[CryptoSigner] = []
    known = cache(passphrase)
    for file in files:
        try:
            key = read_private_key(file, known)
        except ValueError as error:
            raise RecoveryError(str(error)) from None
        if not isinstance(key, Ed25519PrivateKey):
            raise RecoveryError(f"{file} is no Ed25519 key, as `dynpin recovery init` makes them")
        signers.append(CryptoSigner(key))
    return signers
