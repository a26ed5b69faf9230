"""The text of a malformed pin: what it is instead (RFC 7469 §2.1.1)."""

from __future__ import annotations

import base64
import binascii
import re

from dynpin.pins import Pin

from .faults import Finding, finding, shown

__all__ = ["pin_value_finding"]

_HEX = re.compile(r"(?:[0-9a-fA-F]{2}[: ]?){31}[0-9a-fA-F]{2}")
_WORDS = re.compile(
    r"primary|backup|base64|your|example|placeholder|hash|fingerprint|insert|replace|todo|change|xxxx|current|spare|spki|dummy|fake|sample|here|value|string|sha256"
    r"|(?:^|[-_ ])(?:pin|key)(?:$|[-_ \d])",
    re.IGNORECASE,
)
_BRACKETS = re.compile(r"[<>{}$%\[\]\u2026]|\.\.\.")


def pin_value_finding(text: str, span: tuple[int, int]) -> Finding | None:
    """The fault of the text between the quotes of a pin-sha256 directive; None if it is a pin."""
    try:
        Pin.from_base64(text)
    except ValueError:
        pass
    else:
        return None
    if _HEX.fullmatch(text):
        digits = re.sub("[: ]", "", text)
        return finding("pin-hex", span, pin=str(Pin(bytes.fromhex(digits))))
    # A long text may contain a word by chance; a short one hardly.
    if _BRACKETS.search(text) or (len(text) < 40 and _WORDS.search(text)):
        return finding("pin-placeholder-text", span, value=shown(text))
    digest = _decoded(text.replace("-", "+").replace("_", "/").rstrip("="))
    if digest is not None and len(digest) == 32:
        return finding("pin-base64url-or-unpadded", span, pin=str(Pin(digest)))
    if digest is not None and len(text) % 4 == 0 and _decoded(text) is not None:
        return finding("pin-wrong-length", span, length=str(len(digest)))
    return finding("pin-not-base64", span, value=shown(text))


def _decoded(text: str) -> bytes | None:
    padded = text if text.endswith("=") else text + "=" * (-len(text) % 4)
    try:
        return base64.b64decode(padded, validate=True)
    except (binascii.Error, ValueError):
        return None
