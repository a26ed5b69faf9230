"""One entry of a pin file, field by field: what every format with named fields shares."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from typing import cast

from dynpin.clientstore.static import static_entry
from dynpin.errors import InvalidHost, InvalidPinFile
from dynpin.hosts import KnownPinnedHost, OnExpiry, canonical_host, is_ip_literal
from dynpin.pins import Pin
from dynpin.report import FIRST_SECOND, LAST_SECOND

__all__ = ["Fields", "certificate_digest"]


class Fields:
    """The fields of one entry; what is wrong with them is told with the place where it stands."""

    def __init__(self, fields: Mapping[str, object], where: str) -> None:
        self._fields = fields
        self._where = where

    def wrong(self, what: str) -> InvalidPinFile:
        """The error for this entry."""
        return InvalidPinFile(f"{self._where}: {what}")

    def text(self, name: str) -> str | None:
        """A field of text, or None where it is missing or empty."""
        value = self._fields.get(name)
        if value is None or value == "":
            return None
        # What is not printable has no place in a name, a URI or a word, and would reach a terminal.
        if not isinstance(value, str) or not value.isprintable():
            raise self.wrong(f"{name} is {value!r}, not a line of text")
        return value

    def truth(self, name: str) -> bool:
        """A field that is true or false; false where it is missing."""
        value = self._fields.get(name)
        if value in (None, "", False, "false", "0"):
            return False
        if value in (True, "true", "1"):
            return True
        raise self.wrong(f"{name} is {value!r}, not true or false")

    def texts(self, name: str) -> list[str]:
        """A list of texts, or one text in which white space stands between them."""
        value = self._fields.get(name)
        if value is None:
            return []
        if isinstance(value, str):
            return value.split()
        members = cast("list[object]", value) if isinstance(value, list) else None
        if members is None or not all(isinstance(member, str) for member in members):
            raise self.wrong(f"{name} is no list of texts")
        return cast("list[str]", members)

    def moment(self, name: str) -> float | None:
        """A time in seconds since the epoch, from RFC 3339 text or a date of TOML; None where it is missing."""
        value = self._fields.get(name)
        if value is None or value == "":
            return None
        moment = _moment(value)
        if moment is None:
            raise self.wrong(f"{name} is {value!r}, not a time such as 2027-01-31T00:00:00Z")
        return moment

    def pins(self, name: str) -> list[Pin]:
        """A list of pins; `sha256/`, as OkHttp and Chromium write it, may stand before each."""
        try:
            return [Pin.from_base64(text.removeprefix("sha256/")) for text in self.texts(name)]
        except ValueError as error:
            raise self.wrong(str(error)) from None

    def certificates(self, name: str) -> list[bytes]:
        """A list of SHA-256 digests of certificates, as openssl prints them."""
        try:
            return [certificate_digest(text) for text in self.texts(name)]
        except ValueError as error:
            raise self.wrong(str(error)) from None

    def static(
        self, pins: list[Pin], certificates: list[bytes], now: float, origin: str | None = None
    ) -> KnownPinnedHost:
        """The static entry that the fields describe."""
        expires_at = self.moment("expires_at")
        on_expiry = self.text("on_expiry")
        if expires_at is not None and on_expiry is None:
            raise self.wrong(
                'it has expires_at and must say what comes then: on_expiry = "release" (as with no pins) or "refuse"'
            )
        noted_at = self.moment("noted_at")
        try:
            return static_entry(
                self.text("host") or "",
                pins,
                certificates=certificates,
                include_subdomains=self.truth("include_subdomains"),
                report_uri=self.text("report_uri"),
                noted_at=now if noted_at is None else noted_at,
                expires_at=expires_at,
                on_expiry=cast("OnExpiry", on_expiry or "release"),  # static_entry checks it
                origin=origin,
            )
        except ValueError as error:
            raise self.wrong(str(error)) from None

    def noted(self, pins: list[Pin], now: float, origin: str | None = None) -> KnownPinnedHost:
        """The entry, noted from a header, that the fields describe."""
        noted_at, expires_at = self.moment("noted_at"), self.moment("expires_at")
        if expires_at is None:
            raise self.wrong("it was noted from a header and has no expires_at")
        if not pins:
            raise self.wrong("it has no pins")
        return KnownPinnedHost(
            host=self.host(),
            pins=tuple(dict.fromkeys(pins)),
            include_subdomains=self.truth("include_subdomains"),
            report_uri=self.text("report_uri"),
            noted_at=now if noted_at is None else noted_at,
            expires_at=expires_at,
            origin=origin,
        )

    def host(self) -> str:
        """The canonical host, which is no IP address."""
        try:
            name = canonical_host(self.text("host") or "")
        except InvalidHost as error:
            raise self.wrong(str(error)) from None
        if is_ip_literal(name):
            raise self.wrong(f"{name} is an IP address: only host names are pinned (RFC 7469 §2.3.3)")
        return name


def _moment(value: object) -> float | None:
    try:
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        elif isinstance(value, date) and not isinstance(value, datetime):
            value = datetime.combine(value, time.min)
        if isinstance(value, datetime):
            seconds = (value if value.tzinfo is not None else value.replace(tzinfo=UTC)).timestamp()
            # An offset may lead out of the years that can be written.
            return seconds if FIRST_SECOND <= seconds <= LAST_SECOND else None
    except (ValueError, OverflowError):
        return None
    return None


def certificate_digest(text: str) -> bytes:
    """The SHA-256 of a certificate from its text: 64 hexadecimal digits, with or without colons.

    Raises:
        ValueError: for anything else.
    """
    digits = text.removeprefix("sha256 Fingerprint=").replace(":", "")
    try:
        digest = bytes.fromhex(digits)
    except ValueError:
        digest = b""
    if len(digest) != 32 or len(digits) != 64:
        raise ValueError(f"{text[:80]!r} is no SHA-256 of a certificate: 64 hexadecimal digits, with colons or without")
    return digest
