"""The Public-Key-Pins header: strict parsing, canonical writing (RFC 7469 §2.1)."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from dynpin.errors import InvalidHeader
from dynpin.pins import Pin
from dynpin.recovery import Recovery
from dynpin.uris import is_http_uri

__all__ = [
    "DIRECTIVE_NAMES",
    "ENFORCE_NAME",
    "REPORT_ONLY_NAME",
    "Directive",
    "Malformed",
    "PublicKeyPins",
    "read_recovery",
    "scan",
]

ENFORCE_NAME = "Public-Key-Pins"
REPORT_ONLY_NAME = "Public-Key-Pins-Report-Only"

# Every directive that is read here, as it is written; those of recovery are dynpin's own (§2.1 rule 5).
DIRECTIVE_NAMES = ("pin-sha256", "max-age", "includeSubDomains", "report-uri", "recovery-root", "recovery-uri")

MAX_LENGTH = 8192
MAX_PINS = 64
# RFC 7234 §1.2.1: a delta-seconds too large to represent counts as 2147483648.
MAX_MAX_AGE = 2**31

# RFC 7230 §3.2.6
#   token         = 1*tchar
#   quoted-string = DQUOTE *( qdtext / quoted-pair ) DQUOTE
#   qdtext        = HTAB / SP / %x21 / %x23-5B / %x5D-7E / obs-text
#   quoted-pair   = "\" ( HTAB / SP / VCHAR / obs-text )
_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # noqa: S105 - the token of the grammar
_UNCLOSED = r'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*'
_QUOTED = _UNCLOSED + '"'
# RFC 7469 §2.1
#   Public-Key-Directives = directive *( OWS ";" OWS directive )
#   directive             = directive-name [ "=" directive-value ]
# No white space around "=": rule 4 forbids repairs. An empty directive is accepted, against the RFC, on purpose.
_DIRECTIVE = re.compile(rf"(?P<name>{_TOKEN})(?:=(?P<value>(?P<token>{_TOKEN})|(?P<quoted>{_QUOTED})))?")
_AS_FAR_AS_QUOTED = re.compile(_UNCLOSED)
_OWS = re.compile(r"[\t ]*")
_PAIR = re.compile(r"\\(.)", re.DOTALL)
_DIGITS = re.compile(r"[0-9]+")
_QUOTABLE = re.compile(r"[\t \x21-\x7e\x80-\xff]*")


class Directive(NamedTuple):
    """One directive of a value: ``value[position:end]``, with its name in lower case."""

    name: str
    value: str | None
    quoted: bool
    position: int
    value_position: int
    end: int


class Malformed(NamedTuple):
    """A part ``value[start:end]`` between semicolons that breaks the grammar at `position`."""

    message: str
    position: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class PublicKeyPins:
    """One Public-Key-Pins or Public-Key-Pins-Report-Only header field (RFC 7469 §2.1).

    ``str(header)`` is the canonical text, and ``parse(str(h), report_only=h.report_only) == h``.

    Attributes:
        pins: the pins in their order, without duplicates.
        max_age: seconds, at most 2**31; None in report-only, which ignores it (§2.1.2).
        include_subdomains: whether includeSubDomains is asserted (§2.1.3).
        report_uri: the URI for violation reports, or None (§2.1.4).
        report_only: whether this is the Report-Only field (§2.3.2).
        other_pins: pins of unknown algorithms as (algorithm, text). They are written back, and never match (§2.1.1).
        recovery: the values of ``recovery-root`` and ``recovery-uri``, or None. They are extension directives of
            dynpin (§2.1 rule 5). If one is missing or malformed, both are ignored, and the pins still hold.
        recovery_error: why both were ignored, or None. It is not a part of the value. The codes are
            ``recovery-alone``, ``recovery-root-invalid`` and ``recovery-uri-invalid``.

    Raises:
        InvalidHeader: if the values cannot be written as a header; the codes are those of :meth:`parse`.
    """

    pins: tuple[Pin, ...]
    max_age: int | None = None
    include_subdomains: bool = False
    report_uri: str | None = None
    report_only: bool = False
    other_pins: tuple[tuple[str, str], ...] = ()
    recovery: Recovery | None = None
    recovery_error: InvalidHeader | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        pins = tuple(dict.fromkeys(self.pins))
        others = tuple(dict.fromkeys((algorithm.lower(), text) for algorithm, text in self.other_pins))
        if len(pins) + len(others) > MAX_PINS:
            raise InvalidHeader("too-many-pins", f"{len(pins) + len(others)} pins, but the limit is {MAX_PINS}")
        for algorithm, text in others:
            if not re.fullmatch(_TOKEN, algorithm) or algorithm == "sha256" or not _QUOTABLE.fullmatch(text):
                raise InvalidHeader("pin-invalid", f"pin-{algorithm} with {text!r} cannot be written in a header")
        if self.report_only:
            max_age = None
        elif self.max_age is None:
            raise InvalidHeader("max-age-missing", "max-age is required in Public-Key-Pins (RFC 7469 §2.1.2)")
        elif self.max_age < 0:
            raise InvalidHeader("max-age-invalid", f"max-age is {self.max_age}, and cannot be negative")
        else:
            max_age = min(operator.index(self.max_age), MAX_MAX_AGE)
        if self.report_uri is not None:
            _check_report_uri(self.report_uri, 0)
        for name, value in (("pins", pins), ("other_pins", others), ("max_age", max_age)):
            object.__setattr__(self, name, value)
        length = len(";".join(self._texts()))
        if length > MAX_LENGTH:
            raise InvalidHeader("too-long", f"{length} characters, but the limit is {MAX_LENGTH}", MAX_LENGTH)

    @property
    def name(self) -> str:
        """The name of the header field."""
        return REPORT_ONLY_NAME if self.report_only else ENFORCE_NAME

    @property
    def names_only_unknown_algorithms(self) -> bool:
        """Whether all pin directives are of unknown algorithms, and there is at least one (RFC 7469 §2.1.1)."""
        return not self.pins and bool(self.other_pins)

    @classmethod
    def parse(cls, value: str, *, report_only: bool = False) -> PublicKeyPins:
        """Read the value of one header field strictly: a malformed field is never repaired (RFC 7469 §2.1 rule 4).

        Args:
            value: the value as text, decoded as latin-1. If a response has several fields, only the first counts
                (§2.3.1): pass that one, never fields joined by a comma.
            report_only: whether the field is Public-Key-Pins-Report-Only, in which max-age is ignored.

        Raises:
            InvalidHeader: with the code of the first broken rule, in this order: ``empty``, ``too-long``,
                ``syntax`` anywhere in the value, then the directives from left to right (``directive-repeated``,
                ``max-age-invalid``, ``pin-invalid``, ``pin-unquoted``, ``value-unexpected``,
                ``report-uri-invalid``, ``too-many-pins``), and last ``max-age-missing``.
        """
        if not value.strip("\t ;"):
            raise InvalidHeader("empty", "the header field has no directive")
        if len(value) > MAX_LENGTH:
            raise InvalidHeader("too-long", f"{len(value)} characters, but the limit is {MAX_LENGTH}", MAX_LENGTH)
        return _interpret(list(_directives(value)), report_only)

    def __str__(self) -> str:
        text = "; ".join(self._texts())
        # Leave out the white space if the value would be too long with it.
        return text if len(text) <= MAX_LENGTH else ";".join(self._texts())

    def _texts(self) -> list[str]:
        """The directives in canonical form and order."""
        parts = [f'pin-sha256="{pin}"' for pin in self.pins]
        parts += [f"pin-{algorithm}={_quote(text)}" for algorithm, text in self.other_pins]
        if self.max_age is not None:
            parts.append(f"max-age={self.max_age}")
        if self.include_subdomains:
            parts.append("includeSubDomains")
        if self.report_uri is not None:
            parts.append(f"report-uri={_quote(self.report_uri)}")
        if self.recovery is not None:
            parts.append(f"recovery-root={_quote(self.recovery.root_text)}")
            parts.append(f"recovery-uri={_quote(self.recovery.uri)}")
        # §2.1: a field has at least one directive. Report-only ignores max-age, so it can be that directive.
        return parts or ["max-age=0"]


def scan(value: str) -> Iterator[Directive | Malformed]:
    """The directives and the malformed parts of a value, from left to right.

    A client stops at the first :class:`Malformed` (RFC 7469 §2.1 rule 4). The linter goes on after the next ";", to
    name all faults at once. If a malformed part begins with a directive, the directive comes first.
    """
    at = _skip(value, 0)
    while at < len(value):
        if value[at] != ";":
            start = at
            found = _DIRECTIVE.match(value, at)
            if found is not None:
                raw = found["value"]
                yield Directive(
                    name=found["name"].lower(),
                    value=None if raw is None else _PAIR.sub(r"\1", raw[1:-1]) if found["quoted"] else raw,
                    quoted=found["quoted"] is not None,
                    position=at,
                    value_position=at if raw is None else found.start("value"),
                    end=found.end(),
                )
                at = _skip(value, found.end())
            if at < len(value) and value[at] != ";":
                message, position = f"{value[at]!r} instead of a ';' or the end", at
                if found is None:
                    message = f"{value[at]!r} instead of a directive"
                elif found["value"] is None and value[found.end()] == "=":
                    message, position = _no_value(value, found.end() + 1)
                end = value.find(";", position)
                end = len(value) if end < 0 else end
                yield Malformed(message, position, start, end)
                at = end
        at = _skip(value, at + 1)


def _no_value(value: str, at: int) -> tuple[str, int]:
    """Why no directive-value can be read at `at`, just after the "=": the text, and the position."""
    quoted = _AS_FAR_AS_QUOTED.match(value, at)
    if quoted is None:
        found = repr(value[at]) if at < len(value) else "the end"
        return f"{found} instead of the value of a directive", at
    if value[quoted.end() :] in ("", "\\"):
        return "a quoted-string that never ends", at
    return f"{value[quoted.end()]!r} is not allowed in a quoted-string", quoted.end()


def _directives(value: str) -> Iterator[Directive]:
    """The directives of a value, in order; raises InvalidHeader("syntax") at the first fault of the grammar."""
    for found in scan(value):
        if isinstance(found, Malformed):
            raise InvalidHeader("syntax", found.message, found.position)
        yield found


def _skip(value: str, at: int) -> int:
    space = _OWS.match(value, at)
    return space.end() if space else at


def _interpret(directives: list[Directive], report_only: bool) -> PublicKeyPins:
    pins: dict[Pin, None] = {}
    others: dict[tuple[str, str], None] = {}
    seen: set[str] = set()
    max_age: int | None = None
    include_subdomains = False
    report_uri: str | None = None
    recovery: dict[str, Directive] = {}
    for directive in directives:
        if directive.name.startswith("pin-") and directive.name != "pin-":
            _read_pin(directive, pins, others)
            continue
        # RFC 7469 §2.1 rule 2: a directive must not be repeated, even if it is unknown.
        if directive.name in seen:
            raise InvalidHeader("directive-repeated", f"{directive.name} is there twice", directive.position)
        seen.add(directive.name)
        match directive.name:
            # §2.1.2: report-only ignores max-age and its value.
            case "max-age" if not report_only:
                max_age = _read_max_age(directive)
            case "includesubdomains":
                if directive.value is not None:
                    raise InvalidHeader(
                        "value-unexpected", "includeSubDomains takes no value", directive.value_position
                    )
                include_subdomains = True
            case "report-uri":
                report_uri = _check_report_uri(directive.value or "", directive.value_position)
            case "recovery-root" | "recovery-uri":
                recovery[directive.name] = directive
            case _:
                pass  # rule 5: directives that are not recognised are ignored
    found, error = read_recovery(recovery)
    # A missing max-age is checked last, in __post_init__.
    return PublicKeyPins(
        *(tuple(pins), max_age, include_subdomains, report_uri, report_only, tuple(others)),
        recovery=found,
        recovery_error=error,
    )


def read_recovery(directives: Mapping[str, Directive]) -> tuple[Recovery | None, InvalidHeader | None]:
    """The values of ``recovery-root`` and ``recovery-uri``, or why both are ignored; (None, None) if there is none.

    Other clients ignore them (RFC 7469 §2.1 rule 5), so a malformed one is ignored too: the pins still hold.

    Args:
        directives: these two directives of a header, by name.
    """
    if not directives:
        return None, None
    if len(directives) == 1:
        (alone,) = directives.values()
        (other,) = {"recovery-root", "recovery-uri"} - directives.keys()
        return None, InvalidHeader("recovery-alone", f"{alone.name} is there without {other}", alone.position)
    for directive in directives.values():
        if not directive.quoted:
            return None, InvalidHeader(
                f"{directive.name}-invalid", f'{directive.name} has no value in "quotes"', directive.position
            )
    root, uri = (directives[name] for name in ("recovery-root", "recovery-uri"))
    try:
        return Recovery.of_texts(root.value or "", uri.value or ""), None
    except InvalidHeader as error:
        directive = root if error.code == "recovery-root-invalid" else uri
        return None, InvalidHeader(error.code, error.message, directive.value_position)


def _read_pin(directive: Directive, pins: dict[Pin, None], others: dict[tuple[str, str], None]) -> None:
    # RFC 7469 §2.1.1: pin-directive = "pin-" token "=" quoted-string, for every algorithm.
    if directive.value is None:
        raise InvalidHeader("pin-invalid", f"{directive.name} has no value", directive.position)
    if not directive.quoted:
        raise InvalidHeader(
            "pin-unquoted", f'the value of {directive.name} must be in "quotes"', directive.value_position
        )
    algorithm = directive.name.removeprefix("pin-")
    if algorithm == "sha256":
        try:
            pins[Pin.from_base64(directive.value)] = None
        except ValueError as error:
            raise InvalidHeader("pin-invalid", str(error), directive.value_position) from None
    else:
        others[(algorithm, directive.value)] = None
    if len(pins) + len(others) > MAX_PINS:
        raise InvalidHeader("too-many-pins", f"more than {MAX_PINS} pins", directive.position)


def _read_max_age(directive: Directive) -> int:
    digits = directive.value
    if digits is None or not _DIGITS.fullmatch(digits):
        shown = "no value" if digits is None else repr(digits[:40])
        raise InvalidHeader("max-age-invalid", f"max-age has {shown}, not seconds", directive.value_position)
    significant = digits.lstrip("0") or "0"
    # int() refuses numbers with thousands of digits; ten digits are already above the limit.
    return MAX_MAX_AGE if len(significant) > 10 else min(int(significant), MAX_MAX_AGE)


def _check_report_uri(uri: str, position: int) -> str:
    # RFC 7469 §2.1.4: http or https; RFC 3986 §4.3 for absolute.
    if not is_http_uri(uri):
        raise InvalidHeader("report-uri-invalid", f"{uri[:120]!r} is not an absolute http or https URI", position)
    return uri


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
