"""TOML: static pins that a person writes or a program ships (RFC 7469 §2.7)."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import cast

from dynpin.errors import InvalidPinFile, UnpinnableKey
from dynpin.files import read_file
from dynpin.hosts import KnownPinnedHost
from dynpin.pins import Pin, certificates
from dynpin.report import rfc3339
from dynpin.spki import certificate_spki

from .fields import Fields, certificate_digest, printable, shown
from .limits import MOST_ENTRIES, bounded, too_many, whole_text

__all__ = ["read_toml", "write_toml"]

_FORM = "TOML"
_PINS = ("pins", "keys", "certificates")
_FIELDS = frozenset({"host", "include_subdomains", "report_uri", "noted_at", "expires_at", "on_expiry", *_PINS})


def read_toml(
    lines: Iterable[str], *, now: float, folder: Path | None = None, origin: str | None = None
) -> Iterator[KnownPinnedHost]:
    """The static pins of a file with ``[[static]]`` tables.

    Each table has ``host`` and at least one of ``pins`` (base64), ``keys`` (files with a certificate, a CSR or a key)
    and ``certificates`` (SHA-256 digests in hexadecimal, or files with a certificate). It may have
    ``include_subdomains``, ``report_uri``, and ``expires_at`` together with ``on_expiry``.

    Args:
        lines: an open text file, or lines of text. It is read as a whole.
        now: seconds since the epoch, UTC: becomes the time of noting.
        folder: the folder of the files in ``keys`` and ``certificates``; None if files are not allowed.
        origin: the name of the file, for messages.

    Raises:
        InvalidPinFile: if the text is not such a file, if it has more than 10,000 tables, or if it has an unknown
            field (probably a typing error).
    """
    text = whole_text(lines, _FORM)
    if text.count("[[static]]") > MOST_ENTRIES:  # tomllib needs seconds for a megabyte
        raise too_many(_FORM)
    try:
        loaded = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidPinFile(f"the file is not TOML: {error}") from None
    tables: object = loaded.pop("static", None)
    if loaded or not isinstance(tables, list):
        raise InvalidPinFile("a file of static pins has [[static]] tables and nothing else")
    members = cast("list[object]", tables)
    if len(members) > MOST_ENTRIES:
        raise too_many(_FORM)
    for number, table in enumerate(members, start=1):
        if not isinstance(table, dict):
            raise InvalidPinFile(f"entry {number}: it is not a table")
        fields = cast("dict[str, object]", table)
        try:
            entry = _entry(fields, now, folder, origin)
        except ValueError as error:
            raise InvalidPinFile(f"entry {number} ({shown(fields.get('host', 'no host'))}): {error}") from None
        yield entry


def _entry(table: dict[str, object], now: float, folder: Path | None, origin: str | None) -> KnownPinnedHost:
    unknown = sorted(table.keys() - _FIELDS)
    if unknown:
        raise ValueError(f"there is no field {', '.join(map(shown, unknown))}; there are {', '.join(sorted(_FIELDS))}")
    fields = Fields(table)
    pins = [*fields.pins("pins"), *(_key(name, folder) for name in fields.texts("keys"))]
    certificates = [_certificate(name, folder) for name in fields.texts("certificates")]
    return fields.static(pins, certificates, now, origin)


def write_toml(entries: Iterable[KnownPinnedHost]) -> Iterator[str]:
    """A file of static pins with these entries. Noted entries become static too.

    Raises:
        InvalidPinFile: for more than 10,000 entries, before anything is written.
    """
    kept = bounded(entries, _FORM)
    yield "# Static pins for dynpin.\n"
    for entry in kept:
        lines = ["", "[[static]]", f"host = {_string(entry.host)}"]
        lines += _list("pins", [str(pin) for pin in entry.pins])
        lines += _list("certificates", [digest.hex() for digest in entry.certificates])
        lines.append(f"include_subdomains = {str(entry.include_subdomains).lower()}")
        if entry.expires_at is not None:
            lines += [f"expires_at = {rfc3339(entry.expires_at)}", f"on_expiry = {_string(entry.on_expiry)}"]
        if entry.report_uri is not None:
            lines.append(f"report_uri = {_string(entry.report_uri)}")
        yield "\n".join(lines) + "\n"


def _string(text: str) -> str:
    # A printable character that needs no escape in a JSON string needs none in TOML either. TOML does not allow JSON's
    # pairs of escapes for a character beyond U+FFFF.
    return json.dumps(printable(text), ensure_ascii=False)


def _list(name: str, texts: list[str]) -> list[str]:
    return [f"{name} = [", *(f"    {_string(text)}," for text in texts), "]"] if texts else []


def _key(name: str, folder: Path | None) -> Pin:
    try:
        return Pin.from_file(_file(name, folder))
    except (UnpinnableKey, OSError) as error:
        raise ValueError(printable(str(error))) from None


def _certificate(text: str, folder: Path | None) -> bytes:
    if len(text.replace(":", "")) == 64 and "." not in text:
        return certificate_digest(text)
    try:
        der = _first_certificate(read_file(_file(text, folder)))
        certificate_spki(der)  # raises if it is not a certificate
    except (UnpinnableKey, OSError) as error:
        raise ValueError(f"{shown(text)}: {printable(str(error))}") from None
    return hashlib.sha256(der).digest()


def _first_certificate(data: bytes) -> bytes:
    found = certificates(data)
    if not found:
        raise UnpinnableKey("there is no certificate in it")
    return found[0]


def _file(name: str, folder: Path | None) -> Path:
    if folder is None:
        raise ValueError(f"{shown(name)} names a file, and only a file may name files")
    return folder / name
