"""Read a report: strange values become flags, and only a body that is not a report is refused (RFC 7469 §3)."""

from __future__ import annotations

import json
import math
import re
from typing import cast

from dynpin.errors import InvalidHost, InvalidReport
from dynpin.hosts import canonical_host
from dynpin.pins import Pin

from .building import RECOVERY_STATES, RecoveryState, Report, ReportedRecovery, certificate_pin
from .times import read_time

__all__ = [
    "MAX_CERTIFICATE",
    "MAX_CERTIFICATES",
    "MAX_DEPTH",
    "MAX_KNOWN_PINS",
    "MAX_TEXT",
    "load_json",
    "parse_report",
    "read_report",
    "unwrap",
]

# RFC 7469 §3: known-pin = token "=" quoted-string. In the text the token is the name of the algorithm, in the example
# it is pin-sha256. Both are read, and also bare base64, which some senders use.
_KNOWN_PIN = re.compile(r"""(?P<algorithm>[!#$%&'*+\-.^_`|~0-9A-Za-z]+)=(?P<q>["'])(?P<text>.*)(?P=q)""")

# Honest reports are far below these limits. A larger report is cut and flagged.
MAX_CERTIFICATES = 20
MAX_KNOWN_PINS = 64
MAX_DEPTH = 16
MAX_TEXT = 65_536
# A certificate in PEM. OpenSSL takes a chain of 100 KiB: an attacker's certificate must not be too long to be judged.
MAX_CERTIFICATE = 147_456

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
        "recovery",
    }
)


_STATES: dict[str, RecoveryState] = {state: state for state in RECOVERY_STATES}
_COMPARED = ("known-pins", "served-certificate-chain", "validated-certificate-chain")


def parse_report(body: bytes | str) -> Report:
    """Read a report leniently: strange values are flagged, and only a body that is not a report is refused.

    Flags: ``bare-known-pins``, ``bad-known-pin``, ``too-many-known-pins``, ``other-known-pins``, ``no-date-time``,
    ``bad-date-time``, ``naive-date-time``, ``no-expiration``, ``bad-expiration``, ``naive-expiration``,
    ``no-port``, ``bad-port``, ``port-as-text``, ``no-noted-hostname``, ``bad-noted-hostname``, ``bad-hostname``,
    ``no-include-subdomains``, ``bad-include-subdomains``, ``bad-certificate`` (no pin can be made from it),
    ``too-many-certificates``, ``no-served-chain``, ``no-validated-chain``, ``no-known-pins``, ``bad-recovery``,
    ``unknown-members``.

    Raises:
        InvalidReport: ``not-json``, ``too-deep``, ``not-an-object``, ``other-report-type``, ``no-hostname`` or
            ``nothing-to-compare`` (neither known pins nor a chain, not even unreadable ones).
    """
    return read_report(load_json(body))


def load_json(body: bytes | str) -> object:
    """The JSON value of a body.

    Raises:
        InvalidReport: ``not-json`` or ``too-deep``.
    """
    try:
        loaded: object = json.loads(body, parse_constant=_refuse_constant, parse_float=_finite, parse_int=_integer)
        # "\ud800", half of a surrogate pair, decodes to text that no file or database can store (RFC 7159 §8.2). Only
        # an escape can write one, so text without escapes is not checked.
        if isinstance(body, bytes) or "\\u" in body:
            json.dumps(loaded, ensure_ascii=False).encode()
    except RecursionError:
        raise InvalidReport("too-deep", f"the JSON is nested deeper than {MAX_DEPTH} levels") from None
    except ValueError as error:
        raise InvalidReport("not-json", f"the body is not JSON: {_fault(error)}") from None
    return loaded


def _fault(error: ValueError) -> str:
    """What is wrong with a body, for its sender, who may not know Python."""
    if isinstance(error, json.JSONDecodeError):
        return f"the first fault is at line {error.lineno}, column {error.colno}"
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start + 1} is not text in UTF-8"
    if isinstance(error, UnicodeEncodeError):
        return f"{ascii(error.object[error.start])[1:-1]} is half of a surrogate pair, which is no character"
    return str(error)


def _refuse_constant(name: str) -> object:
    # Python's json reads NaN and Infinity, which RFC 7159 §6 does not allow and other programs cannot read.
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):  # 1e999 is a JSON number, but Python would write it as Infinity, which is not
        raise ValueError(f"{text[:20]} is too large a number to store")
    return number


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:  # Python's limit of digits
        raise ValueError(f"{text[:20]}… is too large a number to store") from None


def unwrap(loaded: object) -> list[object]:
    """The reports in a body: a bare report, or those of a Reporting API envelope.

    An envelope is one object or a list of objects, each with a ``type`` and a ``body``. RFC 7469 has no envelope;
    senders of the Reporting API use the type ``hpkp``. A report of another type stays in its envelope, and
    :func:`read_report` refuses it as ``other-report-type``.
    """
    entries = cast("list[object]", loaded) if isinstance(loaded, list) else [loaded]
    return [_content(entry) for entry in entries]


def _content(entry: object) -> object:
    if isinstance(entry, dict):
        members = cast("dict[str, object]", entry)
        return members["body"] if members.get("type") == "hpkp" and "body" in members else members
    return entry


def read_report(loaded: object) -> Report:
    """Read a report from decoded JSON; see :func:`parse_report` for flags and errors."""
    if not isinstance(loaded, dict):
        raise InvalidReport("not-an-object", "a violation report is one JSON object (RFC 7469 §3)")
    if _deeper_than(cast("object", loaded), MAX_DEPTH):
        raise InvalidReport("too-deep", f"the JSON is nested deeper than {MAX_DEPTH} levels")
    return _Reader(cast("dict[str, object]", loaded)).report()


class _Reader:
    """Reads the members of one report, and collects a flag for each strange one."""

    def __init__(self, members: dict[str, object]) -> None:
        self.members = members
        self.flags: dict[str, None] = {}

    def report(self) -> Report:
        hostname = self.members.get("hostname")
        if not isinstance(hostname, str) or not hostname:
            if "hostname" not in self.members and not (_MEMBERS & self.members.keys()):
                raise InvalidReport("other-report-type", "it has no member of a violation report")
            raise InvalidReport("no-hostname", "the report has no hostname")
        known_pins = self._known_pins()
        served = self._chain("served-certificate-chain", "no-served-chain")
        validated = self._chain("validated-certificate-chain", "no-validated-chain")
        if not any(self._entries(member) for member in _COMPARED):
            raise InvalidReport("nothing-to-compare", "the report has neither known pins nor a certificate chain")
        extra = {name: value for name, value in self.members.items() if name not in _MEMBERS}
        if extra:
            self._flag("unknown-members")
        recovery = self._recovery()
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
            recovery=recovery,
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

    def _recovery(self) -> ReportedRecovery | None:
        match self.members.get("recovery"):
            case None:
                return None
            case {"state": str(named), "list-version": int(version)} if not isinstance(version, bool):
                state = _STATES.get(named)
                if state is not None and 0 <= version < 2**63:
                    return ReportedRecovery(state, version)
            case _:
                pass
        self._flag("bad-recovery")
        return None

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
            text = entry[:MAX_CERTIFICATE] if isinstance(entry, str) else None
            if text is not None:
                texts.append(text)
            if text is None or certificate_pin(text) is None:
                self._flag("bad-certificate")
        return tuple(texts)

    def _entries(self, member: str) -> list[object]:
        given = self.members.get(member)
        return cast("list[object]", given) if isinstance(given, list) else []


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
