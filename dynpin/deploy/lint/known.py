"""Known pins: copied from documents, made without a key, or those of certificate authorities."""

from __future__ import annotations

import base64
import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import cast

from dynpin.pins import Pin

__all__ = ["EMPTY", "NEWLINE", "Authority", "authorities", "copied_pins", "is_known", "is_pattern", "printable"]

EMPTY = Pin(hashlib.sha256(b"").digest())
NEWLINE = Pin(hashlib.sha256(b"\n").digest())


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority whose key sites have pinned; `retired` and `distrusted` say since when."""

    pin: Pin
    name: str
    retired: str | None
    distrusted: str | None


@cache
def _tables() -> Mapping[str, list[dict[str, str]]]:
    text = resources.files("dynpin.deploy.lint").joinpath("known_pins.toml").read_text(encoding="utf-8")
    return cast("Mapping[str, list[dict[str, str]]]", tomllib.loads(text))


def is_known(pin: Pin) -> bool:
    """Whether the origin of the pin is known here."""
    return (
        pin in (EMPTY, NEWLINE)
        or pin in copied_pins()
        or pin in authorities()
        or is_pattern(pin)
        or printable(pin) is not None
    )


@cache
def copied_pins() -> Mapping[Pin, str]:
    """Pins in documents, with the document of each."""
    return {Pin.from_base64(entry["pin"]): entry["source"] for entry in _tables()["copied"]}


@cache
def authorities() -> Mapping[Pin, Authority]:
    """Keys of certificate authorities."""
    found: dict[Pin, Authority] = {}
    for entry in _tables()["authority"]:
        pin = Pin.from_base64(entry["pin"])
        found[pin] = Authority(pin, entry["name"], entry.get("retired"), entry.get("distrusted"))
    return found


def is_pattern(pin: Pin) -> bool:
    """Whether the digest repeats one to four bytes, which no hash does: zeros, or one base64 letter repeated."""
    return any(pin.digest == (pin.digest[:length] * 32)[:32] for length in range(1, 5))


def printable(pin: Pin) -> str | None:
    """The text that the digest spells, or None: a hash never has 32 printable characters."""
    try:
        text = base64.b64decode(str(pin)).decode("ascii")
    except UnicodeDecodeError:
        return None
    return text if text.isprintable() else None
