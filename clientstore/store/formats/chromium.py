"""Chromium's list of static pins: `transport_security_state_static.json` (or `_pins.json`) and its `.pins` file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple, cast

from dynpin.errors import InvalidPinFile, UnpinnableKey
from dynpin.hosts import KnownPinnedHost
from dynpin.pins import Pin

from .fields import Fields, shown
from .json import decode
from .limits import MOST_ENTRIES, too_many, whole_text

__all__ = ["read_chromium"]

_FORM = "Chromium's JSON"
# JSON with comments. The pattern matches strings first, so that a comment sign inside a string stays.
_STRING_OR_COMMENT = re.compile(r'"(?:\\.|[^"\\])*"|//[^\n]*|/\*.*?\*/', re.DOTALL)
_NAME = re.compile(r"[A-Z][A-Za-z0-9_-]*")


def read_chromium(
    lines: Iterable[str], keys: Iterable[str], *, now: float, origin: str | None = None
) -> tuple[list[KnownPinnedHost], list[str]]:
    """The static pins of Chromium's list, without its HSTS and other entries, which have no pins.

    Args:
        lines: the JSON with its comments: an open text file, or lines of text. It is read as a whole.
        keys: the lines of the `.pins` file: each name is followed by a `sha256/` pin, a certificate or a public key.
        now: seconds since the epoch, UTC: becomes the time of noting.
        origin: the name of the file, for messages.

    Returns:
        the entries, and the names of the pinsets that also forbid keys. A pin store cannot forbid keys.

    Raises:
        InvalidPinFile: if a file has another format, if a name in one is missing in the other, or if more than
            10,000 entries have pins.
    """
    loaded = _json(whole_text(lines, _FORM))
    by_name = dict(_keys(whole_text(keys, _FORM)))
    pinsets: dict[str, _PinSet] = {}
    for number, members in enumerate(_objects(loaded, "pinsets"), start=1):
        try:
            name, pinset = _pinset(Fields(members), by_name)
        except ValueError as error:
            raise InvalidPinFile(f"pinset {number}: {error}") from None
        pinsets[name] = pinset
    entries: list[KnownPinnedHost] = []
    for number, members in enumerate(_objects(loaded, "entries"), start=1):
        if members.get("pins") in (None, ""):
            continue
        if len(entries) == MOST_ENTRIES:
            raise too_many(_FORM)
        try:
            entries.append(_entry(Fields(members), pinsets, now, origin))
        except ValueError as error:
            raise InvalidPinFile(f"entry {number} ({shown(members.get('name', 'no name'))}): {error}") from None
    return entries, [name for name, pinset in pinsets.items() if pinset.forbids]


class _PinSet(NamedTuple):
    pins: list[Pin]
    report_uri: str | None
    forbids: bool


def _pinset(fields: Fields, by_name: dict[str, Pin]) -> tuple[str, _PinSet]:
    name = fields.text("name") or ""
    names = fields.texts("static_spki_hashes")
    missing = [key for key in names if key not in by_name]
    if missing:
        raise ValueError(f"{name} names keys that the .pins file has not: {', '.join(map(shown, missing[:5]))}")
    forbids = bool(fields.texts("bad_static_spki_hashes"))
    return name, _PinSet([by_name[key] for key in names], fields.text("report_uri"), forbids)


def _entry(fields: Fields, pinsets: dict[str, _PinSet], now: float, origin: str | None) -> KnownPinnedHost:
    name = fields.text("pins") or ""
    if name not in pinsets:
        raise ValueError(f"there is no pinset {shown(name)}")
    pinset = pinsets[name]
    covers = fields.truth("include_subdomains") or fields.truth("include_subdomains_for_pinning")
    members = {"host": fields.text("name"), "include_subdomains": covers, "report_uri": pinset.report_uri}
    return Fields(members).static(pinset.pins, [], now, origin)


def _json(text: str) -> dict[str, object]:
    def keep_strings(found: re.Match[str]) -> str:
        return found[0] if found[0].startswith('"') else " "

    try:
        loaded = decode(_STRING_OR_COMMENT.sub(keep_strings, text))
    except (ValueError, RecursionError) as error:
        raise InvalidPinFile(f"the file is not JSON with comments: {error}") from None
    if not isinstance(loaded, dict):
        raise InvalidPinFile("the JSON is not an object with pinsets and entries")
    return cast("dict[str, object]", loaded)


def _objects(loaded: dict[str, object], name: str) -> list[dict[str, object]]:
    members = loaded.get(name)
    objects = cast("list[object]", members) if isinstance(members, list) else []
    if not isinstance(members, list) or not all(isinstance(member, dict) for member in objects):
        raise InvalidPinFile(f"the JSON has no list of {name}")
    return cast("list[dict[str, object]]", objects)


def _keys(text: str) -> Iterator[tuple[str, Pin]]:
    name: str | None = None
    block: list[str] = []
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        where = f"line {number} of the .pins file"
        if block or line.startswith("-----BEGIN "):
            block.append(line)
            if line.startswith("-----END "):
                if name is None:
                    raise InvalidPinFile(f"{where}: a key without a name before it")
                yield name, _key("\n".join(block) + "\n", where)
                name, block = None, []
            continue
        if not line or line.startswith("#"):
            continue
        if line.startswith("sha256/"):
            if name is None:
                raise InvalidPinFile(f"{where}: a pin without a name before it")
            yield name, _pin(line, where)
            name = None
        elif name == "PinsListTimestamp" and line.isdigit():
            name = None  # the date on which Chromium's own list was made
        elif name is None and _NAME.fullmatch(line):
            name = line
        else:
            raise InvalidPinFile(f"{where}: {line[:40]!r} is neither a name nor a key")
    if block or name is not None:
        raise InvalidPinFile("the .pins file ends in the middle of a key")


def _pin(text: str, where: str) -> Pin:
    try:
        return Pin.from_base64(text.removeprefix("sha256/"))
    except ValueError as error:
        raise InvalidPinFile(f"{where}: {error}") from None


def _key(pem: str, where: str) -> Pin:
    try:
        return Pin.from_bytes(pem.encode())
    except UnpinnableKey as error:
        raise InvalidPinFile(f"{where}: {error}") from None
