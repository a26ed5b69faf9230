"""The violation report: built strictly, read leniently (RFC 7469 §3)."""

from __future__ import annotations

import hashlib
import json
import math
import re
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import cast

from dynpin.errors import InvalidHost, InvalidReport, UnpinnableKey
from dynpin.hosts import KnownPinnedHost, canonical_host
from dynpin.pins import Pin

__all__ = [
    "Report",
    "build_report",
    "certificate_pin",
    "grouping_key",
    "load_json",
    "parse_report",
    "read_report",
    "read_time",
    "rfc3339",
    "unwrap",
]

# RFC 7469 §3: known-pin = token "=" quoted-string. The text has the token be the algorithm's name, its example has
# pin-sha256: both are read. Some senders give the bare base64.
_KNOWN_PIN = re.compile(r"""(?P<algorithm>[!#$%&'*+\-.^_`|~0-9A-Za-z]+)=(?P<q>["'])(?P<text>.*)(?P=q)""")

# What an honest report stays far below; a hostile one is cut here and flagged.
MAX_CERTIFICATES = 20
MAX_KNOWN_PINS = 64
MAX_DEPTH = 16
MAX_TEXT = 65_536

# What RFC 3339 §5.6 can write: 0001-01-01T00:00:00Z to 9999-12-31T23:59:59Z.
FIRST_SECOND, LAST_SECOND = -62_135_596_800, 253_402_300_799

_MEMBERS = frozenset(
    {
        "date-time",
        "hostname",
        "port",
        "effective-expiration-date",
        "include-subdomains",
        "noted-hostname",
        "served-certificate-chain",
        "validated-certificate-chain",
        "known-pins",
    }
)


_COMPARED = ("known-pins", "served-certificate-chain", "validated-certificate-chain")


@dataclass(frozen=True, slots=True)
class Report:
    """One violation report (RFC 7469 §3).

    Attributes:
        hostname: the host of the original request.
        port: its port, or None where the client could not tell (behind a proxy, for instance).
        noted_hostname: the Known Pinned Host whose entry applied; None where the sender did not say.
        include_subdomains: whether that entry covers subdomains; None where the sender did not say.
        date_time: when the failure was seen, seconds since the epoch, UTC; None where unknown.
        effective_expiration_date: when the entry expires, seconds since the epoch, UTC; None where it never
            does, or is unknown.
        known_pins: the pins of the entry.
        served_chain: the certificates that the server sent, PEM, leaf first.
        validated_chain: the chain that the client built and verified, PEM, leaf first.
        flags: what was odd about a report that was read, as stable names; empty for one that was built here.
        extra: members that RFC 7469 does not name, kept as they came.
    """

    hostname: str
    port: int | None
    noted_hostname: str | None
    include_subdomains: bool | None
    date_time: float | None
    effective_expiration_date: float | None
    known_pins: tuple[Pin, ...]
    served_chain: tuple[str, ...]
    validated_chain: tuple[str, ...]
    flags: tuple[str, ...] = ()
    extra: Mapping[str, object] = field(default_factory=dict[str, object])

    def to_dict(self) -> dict[str, object]:
        """The report as the JSON object of RFC 7469 §3; what is not known is null, never guessed."""
        return {
            "date-time": _optional_rfc3339(self.date_time),
            "hostname": self.hostname,
            "port": self.port,
            "effective-expiration-date": _optional_rfc3339(self.effective_expiration_date),
            "include-subdomains": self.include_subdomains,
            "noted-hostname": self.noted_hostname,
            "served-certificate-chain": list(self.served_chain),
            "validated-certificate-chain": list(self.validated_chain),
            "known-pins": [f'pin-sha256="{pin}"' for pin in self.known_pins],
        }

    def to_json(self) -> str:
        """The body to POST to a report-uri."""
        return json.dumps(self.to_dict())


def rfc3339(seconds: float) -> str:
    """A time in seconds since the epoch as RFC 3339 §5.6 text in UTC, such as ``2014-04-06T13:00:50Z``.

    RFC 3339 has the years 0001 to 9999; a time beyond them, such as that of a pin meant to last for ever, is written
    as their first or last second.
    """
    # Not strftime: its %Y has fewer than four digits before the year 1000.
    within = datetime.fromtimestamp(min(max(seconds, FIRST_SECOND), LAST_SECOND), UTC)
    return within.replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def build_report(
    *,
    host: str,
    port: int | None,
    known_host: KnownPinnedHost,
    served: Iterable[bytes],
    validated: Iterable[bytes],
    now: float,
) -> Report:
    """The report of a connection that failed Pin Validation.

    Args:
        host: the canonical host of the request.
        port: its port, or None where the client cannot tell.
        known_host: the entry that applied.
        served: the DER certificates that the server sent.
        validated: the DER certificates of the chain that the client built.
        now: seconds since the epoch, UTC.
    """
    return Report(
        hostname=host,
        port=port,
        noted_hostname=known_host.host,
        include_subdomains=known_host.include_subdomains,
        date_time=now,
        effective_expiration_date=known_host.expires_at,
        known_pins=known_host.pins,
        served_chain=tuple(ssl.DER_cert_to_PEM_cert(der) for der in served),
        validated_chain=tuple(ssl.DER_cert_to_PEM_cert(der) for der in validated),
    )


def parse_report(body: bytes | str) -> Report:
    """Read a report leniently: odd values are flagged and kept apart, only what makes it no report is refused.

    Flags: ``bare-known-pins``, ``bad-known-pin``, ``too-many-known-pins``, ``other-known-pins``, ``no-date-time``,
    ``bad-date-time``, ``naive-date-time``, ``no-expiration``, ``bad-expiration``, ``naive-expiration``,
    ``no-port``, ``bad-port``, ``port-as-text``, ``no-noted-hostname``, ``bad-noted-hostname``, ``bad-hostname``,
    ``no-include-subdomains``, ``bad-include-subdomains``, ``bad-certificate`` (no pin can be formed from it),
    ``too-many-certificates``, ``no-served-chain``, ``no-validated-chain``, ``no-known-pins``, ``unknown-members``.

    Raises:
        InvalidReport: ``not-json``, ``too-deep``, ``not-an-object``, ``other-report-type``, ``no-hostname`` or
            ``nothing-to-compare`` (neither known pins nor a chain, not even unreadable ones).
    """
    return read_report(load_json(body))


def load_json(body: bytes | str) -> object:
    """What the JSON of a body holds.

    Raises:
        InvalidReport: ``not-json`` or ``too-deep``.
    """
    try:
        loaded: object = json.loads(body, parse_constant=_refuse_constant, parse_float=_finite)
        # "\ud800", half of a surrogate pair, decodes to text that no file and no database takes (RFC 7159 §8.2). Only
        # an escape can write one, so that text without escapes is spared the time.
        if isinstance(body, bytes) or "\\u" in body:
            json.dumps(loaded, ensure_ascii=False).encode()
    except RecursionError:
        raise InvalidReport("too-deep", f"the JSON is nested deeper than {MAX_DEPTH} levels") from None
    except ValueError as error:
        raise InvalidReport("not-json", f"the body is not JSON: {error}") from None
    return loaded


def _refuse_constant(name: str) -> object:
    # Python's json reads NaN and Infinity, which RFC 7159 §6 does not permit and no other program reads back.
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):  # 1e999: a JSON number, and written back as Infinity, which is none
        raise ValueError(f"{text[:20]} is no number that can be kept")
    return number


def unwrap(loaded: object) -> list[object]:
    """The reports in a body, one by one: a bare report, or those of a Reporting API envelope.

    An envelope is a list of objects, or one, each with a ``type`` and a ``body``. RFC 7469 knows no envelope; senders
    of the Reporting API put ``hpkp`` as the type. What is of another type stays in its envelope, and
    :func:`read_report` then names it ``other-report-type``.
    """
    entries = cast("list[object]", loaded) if isinstance(loaded, list) else [loaded]
    return [_content(entry) for entry in entries]


def _content(entry: object) -> object:
    if isinstance(entry, dict):
        members = cast("dict[str, object]", entry)
        return members["body"] if members.get("type") == "hpkp" and "body" in members else members
    return entry


def certificate_pin(pem: str) -> Pin | None:
    """The pin of one certificate of a report, or None where the text is no certificate that can be pinned."""
    # A hostile report must not fill the memory through the cache; real certificates are short.
    return _short_certificate_pin(pem) if len(pem) <= 4096 else _certificate_pin(pem)


def _certificate_pin(pem: str) -> Pin | None:
    try:
        return Pin.from_certificate(pem.encode("ascii", "replace"))
    except UnpinnableKey:
        return None


_short_certificate_pin = lru_cache(maxsize=1024)(_certificate_pin)


def grouping_key(report: Report, *, mode: str = "") -> str:
    """32 hexadecimal digits that are the same for all reports of one cause: what Chromium compared, dates left out.

    Noted host, host, port, the known pins in any order, the pins of the validated chain and the mode.
    """
    chain = [certificate_pin(pem) for pem in report.validated_chain]
    parts = [
        report.noted_hostname,
        report.hostname,
        report.port,
        sorted(str(pin) for pin in report.known_pins),
        ["" if pin is None else str(pin) for pin in chain],
        mode,
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def read_report(loaded: object) -> Report:
    """Read a report from JSON that is decoded already; see :func:`parse_report` for flags and errors."""
    if not isinstance(loaded, dict):
        raise InvalidReport("not-an-object", "a violation report is one JSON object (RFC 7469 §3)")
    if _deeper_than(cast("object", loaded), MAX_DEPTH):
        raise InvalidReport("too-deep", f"the JSON is nested deeper than {MAX_DEPTH} levels")
    return _Reader(cast("dict[str, object]", loaded)).report()


class _Reader:
    """Reads the members of one report, collecting a flag for each that is odd."""

    def __init__(self, members: dict[str, object]) -> None:
        self.members = members
        self.flags: dict[str, None] = {}

    def report(self) -> Report:
        hostname = self.members.get("hostname")
        if not isinstance(hostname, str) or not hostname:
            if "hostname" not in self.members and not (_MEMBERS & self.members.keys()):
                raise InvalidReport("other-report-type", "no member of a pin violation report is present")
            raise InvalidReport("no-hostname", "the report has no hostname")
        known_pins = self._known_pins()
        served = self._chain("served-certificate-chain", "no-served-chain")
        validated = self._chain("validated-certificate-chain", "no-validated-chain")
        if not any(self._entries(member) for member in _COMPARED):
            raise InvalidReport("nothing-to-compare", "the report has neither known pins nor a certificate chain")
        extra = {name: value for name, value in self.members.items() if name not in _MEMBERS}
        if extra:
            self._flag("unknown-members")
        return Report(
            hostname=self._host(hostname, "bad-hostname"),
            port=self._port(),
            noted_hostname=self._noted_hostname(),
            include_subdomains=self._include_subdomains(),
            date_time=self._time("date-time", "date-time"),
            effective_expiration_date=self._time("effective-expiration-date", "expiration"),
            known_pins=known_pins,
            served_chain=served,
            validated_chain=validated,
            flags=tuple(self.flags),
            extra=extra,
        )

    def _flag(self, flag: str) -> None:
        self.flags[flag] = None

    def _host(self, name: str, flag: str) -> str:
        try:
            return canonical_host(name)
        except InvalidHost:
            self._flag(flag)
            return name[:MAX_TEXT]

    def _noted_hostname(self) -> str | None:
        name = self.members.get("noted-hostname")
        if isinstance(name, str) and name:
            return self._host(name, "bad-noted-hostname")
        self._flag("no-noted-hostname" if name is None else "bad-noted-hostname")
        return None

    def _port(self) -> int | None:
        port = self.members.get("port")
        if isinstance(port, str) and port.isascii() and port.isdigit() and len(port) <= 5:
            self._flag("port-as-text")
            port = int(port)
        if port is None:
            self._flag("no-port")
            return None
        if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536:
            self._flag("bad-port")
            return None
        return port

    def _include_subdomains(self) -> bool | None:
        value = self.members.get("include-subdomains")
        if isinstance(value, bool):
            return value
        self._flag("no-include-subdomains" if value is None else "bad-include-subdomains")
        return None

    def _time(self, member: str, name: str) -> float | None:
        seconds, flag = read_time(self.members.get(member), name)
        if flag:
            self._flag(flag)
        return seconds

    def _known_pins(self) -> tuple[Pin, ...]:
        entries = self._entries("known-pins")
        if not entries:
            self._flag("no-known-pins")
        if len(entries) > MAX_KNOWN_PINS:
            self._flag("too-many-known-pins")
        pins: dict[Pin, None] = {}
        for entry in entries[:MAX_KNOWN_PINS]:
            text = entry if isinstance(entry, str) else ""
            found = _KNOWN_PIN.fullmatch(text)
            if found is not None and found["algorithm"].lower() not in ("pin-sha256", "sha256"):
                self._flag("other-known-pins")
                continue
            try:
                pins[Pin.from_base64(text if found is None else found["text"].replace("\\", ""))] = None
            except ValueError:
                self._flag("bad-known-pin")
                continue
            if found is None:
                self._flag("bare-known-pins")
        return tuple(pins)

    def _chain(self, member: str, missing: str) -> tuple[str, ...]:
        entries = self._entries(member)
        if not entries:
            self._flag(missing)
        if len(entries) > MAX_CERTIFICATES:
            self._flag("too-many-certificates")
        texts: list[str] = []
        for entry in entries[:MAX_CERTIFICATES]:
            text = entry[:MAX_TEXT] if isinstance(entry, str) else None
            if text is not None:
                texts.append(text)
            if text is None or certificate_pin(text) is None:
                self._flag("bad-certificate")
        return tuple(texts)

    def _entries(self, member: str) -> list[object]:
        given = self.members.get(member)
        return cast("list[object]", given) if isinstance(given, list) else []


def read_time(text: object, name: str) -> tuple[float | None, str]:
    """A time of a report in seconds since the epoch, UTC, and the flag of what is odd about it, or ``""``.

    The flag is ``no-``, ``bad-`` or ``naive-`` and the name; a naive time, without an offset, is read as UTC.
    """
    if text is None:
        return None, f"no-{name}"
    moment = _moment(text)
    if moment is None:
        return None, f"bad-{name}"
    if moment.tzinfo is None:
        return moment.replace(tzinfo=UTC).timestamp(), f"naive-{name}"
    return moment.timestamp(), ""


def _moment(text: object) -> datetime | None:
    """A time of a report, or None where it is no date-time or an offset leads out of the years of RFC 3339."""
    if not isinstance(text, str) or "T" not in text.upper():
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    seconds = moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()
    return moment if FIRST_SECOND <= seconds <= LAST_SECOND else None


def _optional_rfc3339(seconds: float | None) -> str | None:
    return None if seconds is None else rfc3339(seconds)


def _deeper_than(value: object, depth: int) -> bool:
    level = [value]
    for _ in range(depth + 1):
        level = [item for container in level for item in _items(container)]
        if not level:
            return False
    return True


def _items(value: object) -> list[object]:
    if isinstance(value, dict):
        return list(cast("dict[object, object]", value).values())
    return cast("list[object]", value) if isinstance(value, list) else []
