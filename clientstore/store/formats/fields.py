"""One entry of a pin file, field by field: shared by all formats with named fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, time
from typing import cast

from dynpin.hosts import KnownPinnedHost, OnExpiry, canonical_host, is_ip_literal
from dynpin.pins import Pin
from dynpin.recovery import NotedRecovery, Recovery
from dynpin.report import FIRST_SECOND, LAST_SECOND

from ..static import static_entry

__all__ = ["Fields", "certificate_digest", "pinnable_host", "printable", "shown"]


class Fields:
    """The fields of one entry. Every method raises ValueError if a field is wrong; the reader adds the place."""

    __slots__ = ("_get",)

    def __init__(self, fields: Mapping[str, object]) -> None:
        self._get = fields.get

    def text(self, name: str) -> str | None:
        """A field of text, or None if it is missing or empty."""
        value = self._get(name)
        if value is None or value == "":
            return None
        # Names, URIs and words have no unprintable characters. They could also harm a terminal.
        if isinstance(value, str) and value.isprintable():
            return value
        raise ValueError(f"{name} is {shown(value)}, not a line of text")

    def truth(self, name: str) -> bool:
        """A field that is true or false; false if it is missing."""
        value = self._get(name)
        if value in (None, "", False, "false", "0"):
            return False
        if value in (True, "true", "1"):
            return True
        raise ValueError(f"{name} is {shown(value)}, not true or false")

    def texts(self, name: str) -> list[str]:
        """A list of texts; or the words of one text, split at white space."""
        value = self._get(name)
        if value is None:
            return []
        if isinstance(value, str):
            return value.split()
        if not isinstance(value, list):
            raise ValueError(f"{name} is {shown(value)}, not a list of texts")  # noqa: TRY004 - as any fault in a file
        members = cast("list[object]", value)
        for member in members:
            if not isinstance(member, str):
                raise ValueError(f"{name} has {shown(member)}, not a text")  # noqa: TRY004 - likewise
        return cast("list[str]", members)

    def moment(self, name: str) -> float | None:
        """A time in seconds since the epoch, from RFC 3339 text or a date of TOML; None if it is missing."""
        value = self._get(name)
        if value is None or value == "":
            return None
        try:
            if isinstance(value, str):
                value = datetime.fromisoformat(value)
            elif isinstance(value, date) and not isinstance(value, datetime):
                value = datetime.combine(value, time.min)
            if isinstance(value, datetime):
                moment = (value if value.tzinfo is not None else value.replace(tzinfo=UTC)).timestamp()
                if FIRST_SECOND <= moment <= LAST_SECOND:  # an offset may lead out of the years 1 to 9999
                    return moment
        except (ValueError, OverflowError):
            pass
        raise ValueError(
            f"{name} is {shown(self._get(name))}, not a time such as 2027-01-31T00:00:00Z in the years 0001 to 9999"
        )

    def pins(self, name: str) -> list[Pin]:
        """A list of pins. Each may begin with `sha256/`, as in OkHttp and Chromium."""
        return [Pin.from_base64(text.removeprefix("sha256/")) for text in self.texts(name)]

    def certificates(self, name: str) -> list[bytes]:
        """A list of SHA-256 digests of certificates, in the form that openssl prints."""
        return [certificate_digest(text) for text in self.texts(name)]

    def entry(self, now: float, origin: str | None = None) -> KnownPinnedHost:
        """The entry that the fields describe. It is static unless ``source`` says otherwise.

        Args:
            now: seconds since the epoch, UTC: the time of noting if there is no ``noted_at``.
            origin: the name of the file; None if the field ``origin`` has it.
        """
        pins, certificates = self.pins("pins"), self.certificates("certificates")
        source = self.text("source") or "static"
        origin = origin or self.text("origin")
        if source == "static":
            return self.static(pins, certificates, now, origin)
        if source != "header":
            raise ValueError(f'source is {shown(source)}, not "header" or "static"')
        if certificates:
            raise ValueError("it names certificates, which no header can do: such an entry must be static")
        return self._noted(pins, now, origin)

    def static(
        self, pins: Iterable[Pin], certificates: Iterable[bytes], now: float, origin: str | None = None
    ) -> KnownPinnedHost:
        """The static entry that the fields describe."""
        expires_at = self.moment("expires_at")
        on_expiry = self.text("on_expiry")
        if expires_at is not None and on_expiry is None:
            raise ValueError(
                'it has expires_at, so it must have on_expiry too: "release" (as with no pins) or "refuse"'
            )
        noted_at = self.moment("noted_at")
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

    def _noted(self, pins: Iterable[Pin], now: float, origin: str | None) -> KnownPinnedHost:
        noted_at, expires_at = self.moment("noted_at"), self.moment("expires_at")
        if expires_at is None:
            raise ValueError("it was noted from a header but has no expires_at")
        if not pins:
            raise ValueError("it has no pins")
        return KnownPinnedHost(
            host=pinnable_host(self.text("host") or ""),
            pins=tuple(dict.fromkeys(pins)),
            include_subdomains=self.truth("include_subdomains"),
            report_uri=self.text("report_uri"),
            noted_at=now if noted_at is None else noted_at,
            expires_at=expires_at,
            origin=origin,
            recovery=self._recovery(),
        )

    def _recovery(self) -> NotedRecovery | None:
        root, uri = self.text("recovery_root"), self.text("recovery_uri")
        return None if root is None or uri is None else NotedRecovery(Recovery.of_texts(root, uri))


def pinnable_host(text: str) -> str:
    """The canonical host that the text names.

    Raises:
        ValueError: if it names no host (InvalidHost), or an IP address.
    """
    if not text.isprintable():  # idna's errors may quote the text
        raise ValueError(f"{shown(text)} is not a host name")
    name = canonical_host(text)
    if is_ip_literal(name):
        raise ValueError(f"{name} is an IP address: only host names are pinned (RFC 7469 §2.3.3)")
    return name


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
        raise ValueError(f"{text[:80]!r} is not the SHA-256 of a certificate: 64 hexadecimal digits, colons allowed")
    return digest


def shown(value: object) -> str:
    """A value for an error message: escaped for a terminal, and shortened."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}…"


def printable(text: str) -> str:
    """The text, with a replacement for each character that could control a terminal."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)
