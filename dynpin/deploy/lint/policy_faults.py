"""Faults of a policy: its max-age, its pins, its report-uri (RFC 7469 §2.1-§2.6, §4)."""

from __future__ import annotations

import hashlib
import re
import ssl
from collections import Counter
from collections.abc import Iterator
from urllib.parse import urlsplit

from dynpin.durations import duration
from dynpin.errors import InvalidHost
from dynpin.hosts import canonical_host, superdomains
from dynpin.noting import DEFAULT_MAX_MAX_AGE
from dynpin.pins import Pin

from . import known
from .circumstances import Circumstances
from .faults import Finding, Severity, finding
from .header_text import Reading

__all__ = ["policy_findings"]

HOUR = 60 * 60
DAY = 24 * HOUR
SHORT_MAX_AGE = 15 * DAY
ABSURD_MAX_AGE = 3650 * DAY
# The most keys of a normal site: deployed keys and backups of three key types.
MANY_PINS = 8


def policy_findings(reading: Reading, circumstances: Circumstances) -> Iterator[Finding]:
    """The faults of a policy, as far as the value was readable."""
    if reading.is_no_header:
        return
    yield from _max_age(reading, circumstances)
    yield from _report_uri(reading, circumstances)
    yield from _algorithms(reading)
    if len(reading.pins) > MANY_PINS:
        yield finding("too-many-pins", _pins_span(reading), count=str(len(reading.pins)))
    if reading.max_age == 0 and circumstances.intent == "unpin":
        return
    pins = [(each.pin, each.span) for each in reading.pins if each.pin is not None]
    copied = list(_copied(pins, circumstances))
    yield from copied
    # If a pin cannot be read, nothing is known about the whole set.
    if pins and len(pins) == len(reading.pins):
        explained = any(found.fault == "pin-example-from-rfc-or-tutorial" for found in copied)
        yield from _pin_set(reading, pins, circumstances, explained)


def _max_age(reading: Reading, circumstances: Circumstances) -> Iterator[Finding]:
    seconds, span = reading.max_age, reading.max_age_span
    if seconds is None:
        return
    if seconds == 0:
        if circumstances.intent != "unpin":
            yield finding("max-age-zero", span)
        return
    if seconds < SHORT_MAX_AGE:
        if seconds not in circumstances.ramp_steps:
            # §4.1: a site begins with an hour. A shorter time protects only visitors who return at once.
            severity: Severity | None = "info" if seconds >= HOUR else None
            yield finding("max-age-too-short", span, severity, duration=duration(seconds))
    elif seconds >= 1_000_000_000 and seconds % (1000 * 3600) == 0 and seconds <= 1000 * 730 * DAY:
        # A round number of hours in milliseconds, at least 11 days and at most two years.
        meant = seconds // 1000
        yield finding(
            "max-age-milliseconds",
            span,
            duration=duration(seconds),
            milliseconds=duration(meant),
            seconds=str(min(meant, DEFAULT_MAX_MAX_AGE)),
        )
    elif seconds >= ABSURD_MAX_AGE:
        yield finding("max-age-20-years", span, duration=duration(seconds))
    elif seconds > DEFAULT_MAX_MAX_AGE:
        yield finding("max-age-too-long", span, duration=duration(seconds))
    left = circumstances.leaf_not_after_in_s
    if left is not None and left < seconds:
        yield finding("max-age-longer-than-certificate", span, duration=duration(seconds), left=duration(left))


def _report_uri(reading: Reading, circumstances: Circumstances) -> Iterator[Finding]:
    span = reading.report_uri_span
    if reading.report_uri is None:
        if reading.report_only and span is None:
            yield finding("report-only-without-report-uri")
        return
    parts = urlsplit(reading.report_uri)
    name = parts.hostname or ""
    if parts.scheme == "http":
        yield finding("report-uri-plain-http", span)
    try:
        host = canonical_host(name)
        own = canonical_host(circumstances.host) if circumstances.host else None
    except InvalidHost:
        return
    # RFC 6761 §6.4: no name under .invalid ever resolves.
    reason = "names under .invalid do not exist" if host.rpartition(".")[2] == "invalid" else None
    status = circumstances.report_uri_status
    if status is not None and not re.fullmatch(r"2\d\d|405", status):
        # A healthy collector answers 405 to a probe that is not a POST.
        reason = f"a probe gave {status}"
    if reason:
        yield finding("report-uri-dead", span, uri=reading.report_uri, reason=reason)
    # §2.1.4: Pin Validation applies to the report's own connection, and plain http has none.
    if parts.scheme != "https" or own is None:
        return
    if host == own:
        yield finding("report-uri-same-host", span, host=host)
    elif reading.include_subdomains and own in superdomains(host):
        yield finding("report-uri-covered-by-includeSubDomains", span, host=host, domain=own)


def _algorithms(reading: Reading) -> Iterator[Finding]:
    # Two readable pins make a policy without these.
    enough = len({each.pin for each in reading.pins}) >= 2
    severity: Severity | None = "info" if enough else None
    for directive, span in reading.other_pins:
        hint = "" if enough else "; too few pins are left"
        algorithm = directive.name.removeprefix("pin-")
        if algorithm in ("sha1", "sha512"):
            yield finding(f"pin-algorithm-unsupported-{algorithm}", span, severity, hint=hint)
        else:
            yield finding("pin-directive-misspelt", span, severity, name=directive.name, hint=hint)


def _copied(pins: list[tuple[Pin, tuple[int, int]]], circumstances: Circumstances) -> Iterator[Finding]:
    sources = known.copied_pins()
    shown = {*circumstances.chain_pins, *circumstances.validated_chain_pins, *circumstances.served_chain_pins}
    deployed = {source for pin, source in sources.items() if str(pin) in shown}
    matches = any(str(pin) in shown for pin, _ in pins)
    for pin, span in dict(pins).items():
        text = known.printable(pin)
        if pin == known.EMPTY:
            yield finding("pin-of-empty-input", span)
        elif pin == known.NEWLINE:
            yield finding("pin-of-newline", span)
        elif text is not None:
            yield finding("pin-decodes-to-ascii", span, text=repr(text))
        elif known.is_pattern(pin):
            yield finding("pin-all-zero", span)
        elif pin in sources and sources[pin] not in deployed:
            # One pin matches, so clients note the policy: it only lacks a backup.
            severity: Severity = "warning" if matches else "error"
            yield finding(
                "pin-example-from-rfc-or-tutorial", span, severity, pin=str(pin), origin=f"from {sources[pin]}"
            )


def _pin_set(
    reading: Reading, pins: list[tuple[Pin, tuple[int, int]]], circumstances: Circumstances, explained: bool
) -> Iterator[Finding]:
    chain = circumstances.chain
    counts = Counter(pin for pin, _ in pins)
    span = _pins_span(reading)
    if reading.max_age != 0 and not reading.other_pins and len(counts) == 1:
        yield finding("backup-pin-missing-duplicate" if len(pins) > 1 else "backup-pin-missing-single-pin", span)
    elif reading.max_age != 0 and len(counts) == 1:
        yield finding("backup-pin-missing-single-pin", span)
    if len(counts) > 1:
        repeats = [(pin, at) for index, (pin, at) in enumerate(pins) if pin in [each for each, _ in pins[:index]]]
        for pin, at in repeats:
            yield finding("pin-duplicate", at, pin=str(pin))
    if reading.max_age != 0 and chain and len(counts) > 1 and all(str(pin) in chain for pin in counts):
        yield finding("backup-pin-missing-all-in-chain", span)
    wrong_hash = list(_wrong_hash(pins, circumstances))
    yield from wrong_hash
    authorities = list(_authorities(pins, circumstances))
    yield from authorities
    if chain and not any(str(pin) in chain for pin in counts):
        yield from _no_match(pins, circumstances, span, explained or bool(wrong_hash) or bool(authorities))


def _no_match(
    pins: list[tuple[Pin, tuple[int, int]]], circumstances: Circumstances, span: tuple[int, int], explained: bool
) -> Iterator[Finding]:
    """A policy without the deployed key: described by its cause, or if that is unknown, by its effect."""
    served = [(pin, at) for pin, at in pins if str(pin) in circumstances.served_chain_pins]
    behind = any(str(pin) in circumstances.origin_chain_pins for pin, _ in pins)
    names = known.authorities()
    if served:
        for pin, at in served:
            yield finding("partial-trust-path", at, pin=str(pin))
    elif all(pin in names for pin, _ in pins):
        yield finding("pins-only-CA-not-in-chain", span, names=", ".join(names[pin].name for pin, _ in pins))
    elif behind:
        yield finding(
            "tls-terminated-elsewhere", span, reason="the pins are those of the server behind, not of what clients see"
        )
    elif not explained:
        yield finding("no-pin-matches-chain", span)


def _wrong_hash(pins: list[tuple[Pin, tuple[int, int]]], circumstances: Circumstances) -> Iterator[Finding]:
    for pem in circumstances.certificates:
        try:
            right = Pin.from_certificate(pem)
        except ValueError:
            continue
        body = "".join(line for line in pem.split() if "-" not in line)
        bare = pem.strip().replace("\r\n", "\n")
        texts = {bare, f"{bare}\n", bare.replace("\n", "\r\n"), f"{bare}\n".replace("\n", "\r\n"), body, f"{body}\n"}
        der = ssl.PEM_cert_to_DER_cert(pem.strip())
        for pin, span in pins:
            if pin.digest == hashlib.sha256(der).digest():
                yield finding("pin-of-certificate-not-spki", span, pin=str(right))
            elif any(pin.digest == hashlib.sha256(text.encode()).digest() for text in texts):
                yield finding("pin-of-pem-text", span, pin=str(right))


def _authorities(pins: list[tuple[Pin, tuple[int, int]]], circumstances: Circumstances) -> Iterator[Finding]:
    names = known.authorities()
    # If another pinned key is in the chain nobody is locked out; this pin is only useless.
    saved = any(str(pin) in circumstances.chain for pin, _ in pins if pin not in names)
    severity: Severity | None = "warning" if saved else None
    for pin, span in pins:
        authority = names.get(pin)
        if authority is not None and authority.retired:
            yield finding("ca-pin-intermediate-retired", span, severity, ca=authority.name, since=authority.retired)
        if authority is not None and authority.distrusted:
            yield finding("ca-distrusted-while-pinned", span, severity, ca=authority.name, since=authority.distrusted)


def _pins_span(reading: Reading) -> tuple[int, int]:
    return (reading.pins[0].span[0], reading.pins[-1].span[1])
