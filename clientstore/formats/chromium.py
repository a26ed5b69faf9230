"""Chromium's list of static pins: `transport_security_state_static.json` (or `_pins.json`) and its `.pins` file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import cast

from dynpin.clientstore.formats.fields import Fields
from dynpin.errors import InvalidPinFile, UnpinnableKey
from dynpin.hosts import KnownPinnedHost
from dynpin.pins import Pin

__all__ = ["read_chromium"]

# JSON with comments: a string is taken first, so that what looks like a comment within one stays.
_STRING_OR_COMMENT = re.compile(r'"(?:\\.|[^"\\])*"|//[^\n]*|/\*.*?\*/', re.DOTALL)
_NAME = re.compile(r"[A-Z][A-Za-z0-9_-]*")


def read_chromium(
    text: str, keys: str, *, now: float, origin: str | None = None
) -> tuple[list[KnownPinnedHost], list[str]]:
    """The static pins of Chromium's list; its HSTS and other entries have no pins and are left out.

    Args:
        text: the JSON with its comments.
        keys: the `.pins` file: a name, then a `sha256/` pin, a certificate or a public key.
        now: seconds since the epoch, UTC: when the pins are noted.
        origin: the name of the file, for a person to read.

    Returns:
        the entries, and the names of the pinsets that also forbid keys, which no pin can express.

    Raises:
        InvalidPinFile: where one of the two is no such file, or a name in the one is missing in the other.
    """
    loaded = _json(text)
    by_name = dict(_keys(keys))
    pinsets: dict[str, tuple[list[Pin], str | None]] = {}
    forbidding: list[str] = []
    for number, pinset in enumerate(_objects(loaded, "pinsets"), start=1):
        fields = Fields(pinset, f"pinset {number}")
        name = fields.text("name") or ""
        names = fields.texts("static_spki_hashes")
        missing = [key for key in names if key not in by_name]
        if missing:
            raise fields.wrong(f"{name} names keys that the .pins file has not: {', '.join(missing)}")
        pinsets[name] = ([by_name[key] for key in names], fields.text("report_uri"))
        if fields.texts("bad_static_spki_hashes"):
            forbidding.append(name)
    entries: list[KnownPinnedHost] = []
    for number, entry in enumerate(_objects(loaded, "entries"), start=1):
        fields = Fields(entry, f"entry {number} ({entry.get('name', 'no name')})")
        pins_of = fields.text("pins")
        if pins_of is None:
            continue
        if pins_of not in pinsets:
            raise fields.wrong(f"there is no pinset {pins_of}")
        pins, report_uri = pinsets[pins_of]
        covers = fields.truth("include_subdomains") or fields.truth("include_subdomains_for_pinning")
        members = {"host": fields.text("name"), "include_subdomains": covers, "report_uri": report_uri}
        entries.append(Fields(members, f"entry {number}").static(pins, [], now, origin))
    return entries, forbidding


def _json(text: str) -> dict[str, object]:
    def keep_strings(found: re.Match[str]) -> str:
        return found[0] if found[0].startswith('"') else " "

    try:
        loaded: object = json.loads(_STRING_OR_COMMENT.sub(keep_strings, text))
    except (ValueError, RecursionError) as error:
        raise InvalidPinFile(f"the file is not JSON with comments: {error}") from None
    if not isinstance(loaded, dict):
        raise InvalidPinFile("the JSON is no object with pinsets and entries")
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
                yield name, _pin("\n".join(block) + "\n", where)
                name, block = None, []
            continue
        if not line or line.startswith("#"):
            continue
        if line.startswith("sha256/"):
            if name is None:
                raise InvalidPinFile(f"{where}: a pin without a name before it")
            yield name, Fields({"pin": [line]}, where).pins("pin")[0]
            name = None
        elif name == "PinsListTimestamp" and line.isdigit():
            name = None  # when Chromium's own list was made
        elif name is None and _NAME.fullmatch(line):
            name = line
        else:
            raise InvalidPinFile(f"{where}: {line[:40]!r} is neither a name nor a key")
    if block or name is not None:
        raise InvalidPinFile("the .pins file ends in the middle of a key")


def _pin(pem: str, where: str) -> Pin:
    try:
        return Pin.from_bytes(pem.encode())
    except UnpinnableKey as error:
        raise InvalidPinFile(f"{where}: {error}") from None
