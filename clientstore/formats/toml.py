"""TOML: the static pins that a person writes and a program ships (RFC 7469 §2.7)."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import cast

from dynpin.clientstore.formats.fields import Fields
from dynpin.errors import InvalidPinFile, UnpinnableKey
from dynpin.hosts import KnownPinnedHost
from dynpin.pins import Pin
from dynpin.report import rfc3339
from dynpin.spki import certificate_spki

__all__ = ["read_toml", "write_toml"]

_PINS = ("pins", "keys", "certificates")
_FIELDS = frozenset({"host", "include_subdomains", "report_uri", "noted_at", "expires_at", "on_expiry", *_PINS})


def read_toml(text: str, *, now: float, folder: Path | None = None, origin: str | None = None) -> list[KnownPinnedHost]:
    """The static pins of a file of ``[[static]]`` tables.

    Each has ``host`` and at least one of ``pins`` (base64), ``keys`` (files with a certificate, a CSR or a key) and
    ``certificates`` (SHA-256 digests in hexadecimal, or files with a certificate); and may have
    ``include_subdomains``, ``report_uri``, and ``expires_at`` together with ``on_expiry``.

    Args:
        text: the TOML.
        now: seconds since the epoch, UTC: when the pins are noted.
        folder: where the files of ``keys`` and ``certificates`` stand; None where none may be named.
        origin: the name of the file, for a person to read.

    Raises:
        InvalidPinFile: where it is no such file; a field of another name is an error, since it is a typing error.
    """
    try:
        loaded = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InvalidPinFile(f"the file is not TOML: {error}") from None
    tables: object = loaded.pop("static", None)
    if loaded or not isinstance(tables, list):
        raise InvalidPinFile("a file of static pins holds [[static]] tables and nothing else")
    entries: list[KnownPinnedHost] = []
    for number, table in enumerate(cast("list[object]", tables), start=1):
        if not isinstance(table, dict):
            raise InvalidPinFile(f"entry {number}: it is no table")
        members = cast("dict[str, object]", table)
        fields = Fields(members, f"entry {number} ({members.get('host', 'no host')})")
        unknown = members.keys() - _FIELDS
        if unknown:
            raise fields.wrong(
                f"there is no field {', '.join(sorted(unknown))}; there are {', '.join(sorted(_FIELDS))}"
            )
        pins = [*fields.pins("pins"), *(_key(fields, name, folder) for name in fields.texts("keys"))]
        certificates = [_certificate(fields, name, folder) for name in fields.texts("certificates")]
        entries.append(fields.static(pins, certificates, now, origin))
    return entries


def write_toml(entries: Iterable[KnownPinnedHost]) -> str:
    """A file of static pins with these entries, wherever they came from."""
    lines = ["# Static pins for dynpin."]
    for entry in entries:
        # The strings of JSON are strings of TOML.
        lines += ["", "[[static]]", f"host = {json.dumps(entry.host)}"]
        lines += _list("pins", [str(pin) for pin in entry.pins])
        lines += _list("certificates", [digest.hex() for digest in entry.certificates])
        lines.append(f"include_subdomains = {json.dumps(entry.include_subdomains)}")
        if entry.expires_at is not None:
            lines += [f"expires_at = {rfc3339(entry.expires_at)}", f"on_expiry = {json.dumps(entry.on_expiry)}"]
        if entry.report_uri is not None:
            lines.append(f"report_uri = {json.dumps(entry.report_uri)}")
    return "\n".join(lines) + "\n"


def _list(name: str, texts: list[str]) -> list[str]:
    return [f"{name} = [", *(f"    {json.dumps(text)}," for text in texts), "]"] if texts else []


def _key(fields: Fields, name: str, folder: Path | None) -> Pin:
    try:
        return Pin.from_file(_file(fields, name, folder))
    except (UnpinnableKey, OSError) as error:
        raise fields.wrong(str(error)) from None


def _certificate(fields: Fields, text: str, folder: Path | None) -> bytes:
    if len(text.replace(":", "")) == 64 and "." not in text:
        return Fields({"certificate": [text]}, f"certificate {text}").certificates("certificate")[0]
    try:
        data = _file(fields, text, folder).read_bytes()
        der = _first_certificate(data)
        certificate_spki(der)  # raises where it is no certificate
    except (UnpinnableKey, OSError, ValueError) as error:
        raise fields.wrong(f"{text}: {error}") from None
    return hashlib.sha256(der).digest()


def _first_certificate(data: bytes) -> bytes:
    from cryptography import x509  # noqa: PLC0415 - needed for this one field
    from cryptography.hazmat.primitives.serialization import Encoding  # noqa: PLC0415

    if b"-----BEGIN" not in data:
        return data
    return x509.load_pem_x509_certificates(data)[0].public_bytes(Encoding.DER)


def _file(fields: Fields, name: str, folder: Path | None) -> Path:
    if folder is None:
        raise fields.wrong(f"{name!r} names a file, and only a file may name files")
    return folder / name
