"""Read a header value beyond its first fault (RFC 7469 §2.1).

A client stops at the first fault and ignores the field. The linter names all faults at once, since fixing one lets the
next take effect. It uses the client's own scanner and parser, so the two always agree.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from dynpin.errors import InvalidHeader
from dynpin.header import DIRECTIVE_NAMES, Directive, Malformed, PublicKeyPins, read_recovery, scan
from dynpin.pins import Pin

from .faults import Finding, finding, shown
from .pin_text import pin_value_finding

__all__ = ["PinDirective", "Reading", "read"]

Span = tuple[int, int]

# Text of a server's configuration around a header, which clients must not get.
_CONFIG_BEFORE = re.compile(
    r"\s*(?:add_header|more_set_headers|Header\b|http-response|header\b|set-header|response\.|[\"'])"
    # No header contains a second name of the field, or a quote of HTML or XML.
    r"|.*\bPublic-Key-Pins\b|.*&quot;",
    re.IGNORECASE,
)
_CONFIG_AFTER = re.compile(r"[\"']?\s+(?:always|early|env=\w+|expr=.*)\s*;?\s*$|[\"']\s*[;)}\s]*$", re.IGNORECASE)
# A typographic quote, as text or as UTF-8 bytes decoded as latin-1.
_CURLY = re.compile("[\u2018-\u201f\u00ab\u00bb]|\u00e2\u0080[\u0098-\u009f]")
_BARE_VALUE = re.compile(r"=\s*[\"']?(?P<value>[^\"';\s]*)")
# A pin of any algorithm begins one.
_BEGINS_A_DIRECTIVE = "|".join(["pin-", *DIRECTIVE_NAMES])
_SWALLOWED = re.compile(rf";\s*(?:{_BEGINS_A_DIRECTIVE})", re.IGNORECASE)
_SECOND_FIELD = re.compile(rf",\s*(?:{_BEGINS_A_DIRECTIVE})", re.IGNORECASE)
_RELATIVE = re.compile(r"[A-Za-z0-9\-._~/?#@!$&'()*+,;=%]+")


@dataclass(frozen=True, slots=True)
class PinDirective:
    """A pin-sha256 directive as written; `pin` is None if its value is not a pin."""

    pin: Pin | None
    span: Span


@dataclass(slots=True)
class Reading:
    """The content of a value, as far as it is readable, and its syntax faults.

    `policy` is the header as clients read it, or None if they ignore it. The spans give the place of each directive. A
    malformed directive has a span and no value.
    """

    value: str
    report_only: bool
    findings: list[Finding] = field(default_factory=list[Finding])
    policy: PublicKeyPins | None = None
    pins: list[PinDirective] = field(default_factory=list[PinDirective])
    other_pins: list[tuple[Directive, Span]] = field(default_factory=list[tuple[Directive, Span]])
    max_age: int | None = None
    max_age_span: Span | None = None
    include_subdomains: bool = False
    report_uri: str | None = None
    report_uri_span: Span | None = None
    is_no_header: bool = False

    def add(self, fault: str, span: Span, /, **details: str) -> None:
        """Add a syntax fault."""
        self.findings.append(finding(fault, span, **details))


def read(value: str, *, report_only: bool) -> Reading:
    """Read a value to its end, with all syntax faults."""
    reading = Reading(value, report_only)
    everything = (0, len(value))
    try:
        reading.policy = PublicKeyPins.parse(value, report_only=report_only)
        refused = None
    except InvalidHeader as error:
        refused = error
    if refused is not None and refused.code == "empty":
        reading.add("header-empty", everything)
        reading.is_no_header = True
        return reading
    if refused is not None and refused.code in ("too-long", "too-many-pins"):
        reading.add("header-too-long", everything, reason=refused.message)
    if refused is not None and _is_configuration(reading):
        reading.is_no_header = True
        return reading
    _Directives(reading).read_all()
    # Everything that the parser refuses is a fault, even if the rules above have no name for it.
    if refused is not None and all(found.severity == "info" for found in reading.findings):
        reading.add("header-malformed", (refused.position, len(value)), reason=refused.message)
    return reading


def _is_configuration(reading: Reading) -> bool:
    value = reading.value
    before, after = _CONFIG_BEFORE.match(value), _CONFIG_AFTER.search(value)
    # A final quote that closes a directive's value is not from a configuration.
    mark = after[0].strip(";)} ") if after else ""
    if mark in ("'", '"') and not before and (value.count(mark) % 2 == 0 or _CURLY.search(value)):
        after = None
    found = before or after
    if found is None:
        return False
    reading.add("header-value-carries-server-config-syntax", found.span(), text=shown(found[0].strip()))
    if '\\"' in value:
        at = value.index('\\"')
        reading.add("header-value-escaped-quotes", (at, at + 2))
    return True


class _Directives:
    """Reads the directives of one value into a :class:`Reading`."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.seen: set[str] = set()
        self.hints: dict[str, str] = {}
        self.swallowed = False
        self.is_unpinning = False
        self.recovery: dict[str, Directive] = {}

    def read_all(self) -> None:
        items = list(scan(self.reading.value))
        broken = {item.start: item for item in items if isinstance(item, Malformed)}
        for item in items:
            if isinstance(item, Directive):
                malformed = broken.pop(item.position, None)
                second = malformed and _SECOND_FIELD.match(self.reading.value, malformed.position)
                if malformed is None or second:
                    self._directive(item)
                else:
                    self._malformed(malformed, item)
                if malformed is not None and second:
                    # The rest is another field, which clients do not read here.
                    self.reading.add("multiple-headers-comma-joined", (malformed.position, len(self.reading.value)))
                    break
            elif broken.pop(item.start, None):
                self._malformed(item, None)
        self._missing()
        error = read_recovery(self.recovery)[1]
        if error is not None:
            of = next((each for each in self.recovery.values() if each.position <= error.position < each.end), None)
            span = (0, len(self.reading.value)) if of is None else (of.position, of.end)
            self.reading.add(error.code, span, reason=error.message)

    def _missing(self) -> None:
        reading = self.reading
        everything = (0, len(reading.value))
        has_pins = reading.pins or reading.other_pins
        if not has_pins and reading.max_age == 0:
            reading.add("max-age-zero-without-pins", reading.max_age_span or everything)
        elif not has_pins:
            reading.add("pins-missing", everything)
        if not reading.report_only and reading.max_age_span is None and not self.swallowed:
            reading.add("max-age-missing", everything, hint=self.hints.get("max-age", ""))

    def _malformed(self, stretch: Malformed, directive: Directive | None) -> None:
        reading = self.reading
        text = reading.value[stretch.start : stretch.end]
        span = (stretch.start, stretch.start + len(text.rstrip()))
        name = re.split(r"[=\s]", text, maxsplit=1)[0].lower()
        # A misspelt directive counts as present, so that nobody is told to add it.
        if name == "max-age":
            reading.max_age_span = span
        elif name == "report-uri":
            reading.report_uri_span = span
        elif name == "pin-sha256":
            reading.pins.append(PinDirective(None, span))
        elif name.startswith("pin-") and directive is not None:
            reading.other_pins.append((directive, span))
        if '\\"' in text:
            if not any(found.fault == "header-value-escaped-quotes" for found in reading.findings):
                reading.add("header-value-escaped-quotes", span)
        elif _CURLY.search(text):
            reading.add("pin-curly-quotes", span, name=name, value=_bare_value(_CURLY.sub('"', text)))
        elif name.startswith("pin-"):
            self._malformed_pin(text, name, span, stretch)
        elif name == "report-uri" and '"' in text:
            reading.add("report-uri-unbalanced-quote", span)
            self.swallowed = bool(_SWALLOWED.search(text)) and "max-age" in text.lower()
        elif name == "report-uri" and _bare_value(text):
            reading.add("report-uri-unquoted", span, value=_bare_value(text))
        elif name == "max-age" and not re.fullmatch(r"max-age\s*[=:]\s*[0-9]+\s*", text, re.IGNORECASE):
            reading.findings.append(_max_age_finding(text.partition("=")[2].strip(), span))
        else:
            reading.add("header-malformed", (stretch.position, stretch.end), reason=stretch.message)

    def _malformed_pin(self, text: str, name: str, span: Span, stretch: Malformed) -> None:
        value = _bare_value(text)
        if re.search(r"=\s*'", text):
            self.reading.add("pin-single-quoted", span, name=name, value=value)
        elif re.search(r"[<>{}$]|\.\.\.", value):
            self.reading.add("pin-placeholder-text", span, value=shown(value))
        elif '"' not in text and value:
            self.reading.add("pin-unquoted", span, name=name, value=value)
        else:
            self.reading.add("header-malformed", (stretch.position, stretch.end), reason=stretch.message)

    def _directive(self, directive: Directive) -> None:
        reading = self.reading
        span = (directive.position, directive.end)
        name = directive.name
        if name.startswith("pin-") and name != "pin-":
            self._pin(directive, span)
            return
        if name in self.seen:
            fault = {
                "max-age": "max-age-repeated",
                "includesubdomains": "includeSubDomains-repeated",
                "report-uri": "report-uri-repeated",
            }.get(name, "directive-repeated")
            reading.add(fault, span, name=shown(name))
            return
        self.seen.add(name)
        match name:
            case "max-age":
                self._max_age(directive, span)
            case "includesubdomains":
                self._include_subdomains(directive, span)
            case "report-uri":
                self._report_uri(directive, span)
            case "recovery-root" | "recovery-uri":
                self.recovery[name] = directive
            case _:
                self._unknown(directive, span)

    def _pin(self, directive: Directive, span: Span) -> None:
        reading = self.reading
        value = directive.value or ""
        is_sha256 = directive.name == "pin-sha256"
        fault = None
        if not directive.quoted and value.startswith("'"):
            fault = finding("pin-single-quoted", span, name=directive.name, value=value.strip("'"))
        elif not directive.quoted and value:
            fault = finding("pin-unquoted", span, name=directive.name, value=value)
        elif directive.value is None:
            fault = finding("pin-not-base64", span, value="(no value)")
        elif is_sha256:
            fault = pin_value_finding(value, (directive.value_position, directive.end))
        if fault is not None:
            reading.findings.append(fault)
        if is_sha256:
            pin = Pin.from_base64(value) if fault is None else None
            reading.pins.append(PinDirective(pin, span))
        else:
            reading.other_pins.append((directive, span))

    def _max_age(self, directive: Directive, span: Span) -> None:
        reading = self.reading
        reading.max_age_span = span
        text = directive.value or ""
        if reading.report_only:
            reading.add("max-age-in-report-only", span)
        elif re.fullmatch("[0-9]+", text):
            # 24 digits exceed every limit, and int() refuses thousands of digits.
            reading.max_age = int(text[:24]) if text.strip("0") else 0
        else:
            reading.findings.append(_max_age_finding(text, span))

    def _include_subdomains(self, directive: Directive, span: Span) -> None:
        reading = self.reading
        reading.include_subdomains = True
        if directive.value is not None:
            reading.add("includeSubDomains-with-value", span, value=shown(directive.value))
        written = reading.value[directive.position : directive.position + len(directive.name)]
        if written != "includeSubDomains":
            reading.add("includeSubDomains-case", span, written=shown(written))

    def _report_uri(self, directive: Directive, span: Span) -> None:
        reading = self.reading
        reading.report_uri_span = span
        uri = directive.value or ""
        if directive.value is not None and not directive.quoted:
            reading.add("report-uri-unquoted", span, value=uri)
            return
        try:
            # The parser's own rule, with a header that has no other fault.
            PublicKeyPins((), 0, report_uri=uri)
        except InvalidHeader:
            self._bad_report_uri(uri, span)
        else:
            reading.report_uri = uri

    def _bad_report_uri(self, uri: str, span: Span) -> None:
        scheme = re.match(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):", uri)
        if _SWALLOWED.search(uri):
            self.swallowed = "max-age" in uri.lower()
            self.reading.add("report-uri-unbalanced-quote", span)
        elif uri.startswith("//"):
            self.reading.add("report-uri-scheme-relative", span, value=uri)
        elif scheme and scheme["scheme"].lower() not in ("http", "https"):
            self.reading.add("report-uri-bad-scheme", span, scheme=shown(scheme["scheme"]))
        elif not scheme and _RELATIVE.fullmatch(uri) and not urlsplit(uri).netloc:
            self.reading.add("report-uri-relative", span, value=uri if uri.startswith("/") else f"/{uri}")
        else:
            self.reading.add("report-uri-not-a-uri", span, value=shown(uri))

    def _unknown(self, directive: Directive, span: Span) -> None:
        near = difflib.get_close_matches(directive.name, [name.lower() for name in DIRECTIVE_NAMES], n=1, cutoff=0.7)
        if directive.name.startswith("pin") or near == ["pin-sha256"] or "sha256" in directive.name:
            self.reading.other_pins.append((directive, span))
            return
        meant = next((name for name in DIRECTIVE_NAMES if [name.lower()] == near), None)
        hint = f"; {meant} looks meant" if meant else ""
        if meant:
            self.hints[meant] = f" ({shown(directive.name)} looks meant)"
        self.reading.add("directive-unknown", span, name=shown(directive.name), hint=hint)


def _bare_value(text: str) -> str:
    found = _BARE_VALUE.search(text)
    return found["value"].strip("\\") if found else ""


def _max_age_finding(text: str, span: Span) -> Finding:
    """The fault of a max-age that is not made of digits only."""
    if re.fullmatch(r"-[0-9]+(?:\.[0-9]*)?", text):
        return finding("max-age-negative", span, value=shown(text))
    if re.fullmatch(r"\+?[0-9]*[.,][0-9]+|[0-9]+[.,]", text):
        return finding("max-age-fraction", span, value=shown(text))
    return finding("max-age-not-a-number", span, value=shown(text))
