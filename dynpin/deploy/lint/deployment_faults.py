"""Faults of the deployment around a header: transport, scope, lifecycle, attacks (RFC 7469 §2.2-§5)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from dynpin.durations import duration
from dynpin.errors import InvalidHeader, InvalidHost
from dynpin.header import ENFORCE_NAME, REPORT_ONLY_NAME, PublicKeyPins
from dynpin.hosts import canonical_host, superdomains
from dynpin.noting import DEFAULT_MAX_MAX_AGE

from .circumstances import Circumstances
from .faults import Finding, catalogue, finding
from .header_text import Reading
from .known import is_known

__all__ = ["deployment_findings"]

_BROWSER = re.compile(r"\b(?P<name>Chrome|Chromium|Firefox)[/ ](?P<version>\d+)", re.IGNORECASE)


def deployment_findings(
    reading: Reading | None, circumstances: Circumstances, *, report_only: bool
) -> Iterator[Finding]:
    """The faults in the circumstances; `reading` is None if there is no value."""
    for observed in circumstances.observed:
        begins = catalogue()[observed.fault].message.startswith("{reason}")
        reason = _sentence(observed.reason) if begins else observed.reason
        yield finding(observed.fault, None, observed.severity, reason=reason)
    yield from _transport(circumstances, report_only)
    yield from _mode(circumstances, report_only)
    yield from _environment(circumstances)
    if circumstances.backup_key_path:
        yield finding("backup-key-on-the-same-server", path=circumstances.backup_key_path)
    if reading is None or reading.is_no_header:
        return
    yield from _scope(reading, circumstances)
    pins = tuple(str(each.pin) for each in reading.pins if each.pin is not None)
    if reading.pins and not report_only:
        yield from _lifecycle(pins, circumstances)
    if pins and not report_only:
        yield from _attack(pins, reading, circumstances)


def _transport(circumstances: Circumstances, report_only: bool) -> Iterator[Finding]:
    if circumstances.scheme == "http":
        yield finding("header-over-http")
    if circumstances.chain_valid is False:
        reason = circumstances.chain_failure or "the certificate does not verify"
        yield finding("header-on-invalid-certificate", reason=_sentence(reason))
    root = circumstances.chain_root
    if root and not re.search(r"public|built.?in", root, re.IGNORECASE):
        yield finding("root-not-built-in", root=root)
    if circumstances.app_scheme == "http" and circumstances.scheme != "http":
        yield finding("tls-terminated-elsewhere", reason="it sees http, and clients see https")
    own, other = (REPORT_ONLY_NAME, ENFORCE_NAME) if report_only else (ENFORCE_NAME, REPORT_ONLY_NAME)
    beside = [name.lower() for name in circumstances.also]
    count = max(len(circumstances.fields), 1) + beside.count(own.lower())
    if count > 1:
        yield finding("multiple-headers", count=str(count), name=own)
    if other.lower() in beside:
        yield finding("enforcing-and-report-only-together")
    missing = [path for path, value in circumstances.paths.items() if not value]
    if missing:
        shown = ", ".join(missing[:5]) + (" and others" if len(missing) > 5 else "")
        yield finding("header-missing-on-some-responses", paths=shown)
    policies = {_policy_key(value, report_only) for value in circumstances.nodes}
    if len(policies) > 1:
        yield finding("header-differs-between-nodes", count=str(len(policies)))


def _sentence(text: str) -> str:
    """The text without a final full stop; a file name stays as it is."""
    text = text.removesuffix(".")
    return text if "/" in text.partition(" ")[0] else f"{text[:1].upper()}{text[1:]}"


def _policy_key(value: str, report_only: bool) -> str:
    """The meaning of a value for a client, so that the order of directives makes no difference."""
    try:
        header = PublicKeyPins.parse(value, report_only=report_only)
    except InvalidHeader:
        return value
    pins = sorted(header.pins)
    return str(replace(header, pins=tuple(pins), other_pins=()))


def _mode(circumstances: Circumstances, report_only: bool) -> Iterator[Finding]:
    if circumstances.intent == "report-only" and not report_only:
        yield finding("report-only-becomes-enforcing")
    name = REPORT_ONLY_NAME if report_only else ENFORCE_NAME
    previous = circumstances.previous_name
    flipped = previous is not None and previous.lower() != name.lower()
    config = circumstances.config
    if config is None:
        if flipped:
            yield finding("default-mode-flipped-on-upgrade", reason=f"{previous} was sent before, now {name}")
        return
    wants_report_only = _wants_report_only(config)
    if wants_report_only and not report_only:
        yield finding("report-only-becomes-enforcing")
    elif wants_report_only is None and report_only and config.get("report_uri"):
        yield finding("report-uri-turns-enforcing-off")
    elif wants_report_only is None:
        reason = f"{previous} was sent before, now {name}" if flipped else "the configuration does not name it"
        yield finding("default-mode-flipped-on-upgrade", reason=reason)


def _wants_report_only(config: Mapping[str, object]) -> bool | None:
    if isinstance(config.get("report_only"), bool):
        return config["report_only"] is True
    if isinstance(config.get("enforce"), bool):
        return config["enforce"] is False
    mode = config.get("mode")
    return None if mode is None else mode == "report-only"


def _environment(circumstances: Circumstances) -> Iterator[Finding]:
    for client in circumstances.clients:
        found = _BROWSER.search(client)
        if found and int(found["version"]) >= 72:
            yield finding("post-2018-browsers-ignore", client=f"{found['name']} {found['version']}")


def _scope(reading: Reading, circumstances: Circumstances) -> Iterator[Finding]:
    own = _host(circumstances.host)
    pins = {str(each.pin) for each in reading.pins if each.pin is not None}
    if reading.include_subdomains and pins:
        for host, chain in circumstances.subdomain_chain_pins.items():
            if pins.isdisjoint(chain):
                yield finding("unpinned-subdomain-under-includeSubDomains", host=host)
    domain = circumstances.cookie_domain
    if domain and not reading.include_subdomains and reading.max_age != 0:
        yield finding("pins-without-includeSubDomains-leak-cookies", domain=domain.lstrip("."))
    foreign = [
        host
        for host in circumstances.script_hosts
        if _host(host) != own and not (reading.include_subdomains and own in superdomains(_host(host) or ""))
    ]
    if foreign:
        yield finding("unpinned-active-content", hosts=", ".join(foreign))


def _host(name: str | None) -> str | None:
    try:
        return None if name is None else canonical_host(name)
    except InvalidHost:
        return name


def _lifecycle(pins: tuple[str, ...], circumstances: Circumstances) -> Iterator[Finding]:
    deployed, held = circumstances.deployed_key, circumstances.held_keys
    if deployed and deployed not in pins:
        # If a pinned key is still available the harm is small, else large. If that is unknown, say both.
        if held is None or set(held) & set(pins):
            yield finding("renewal-creates-a-new-key", pin=deployed)
        if held is None or not set(held) & set(pins):
            yield finding("hpkp-suicide-all-keys-lost", pin=deployed)
    if circumstances.previous_header is None:
        return
    try:
        previous = PublicKeyPins.parse(circumstances.previous_header)
    except InvalidHeader:
        return  # clients ignored it, so none of them has it
    held_for = min(previous.max_age or 0, DEFAULT_MAX_MAX_AGE) - circumstances.previous_header_age_s
    longest = (previous.max_age or 0) - circumstances.previous_header_age_s
    if longest <= 0:
        return
    before = tuple(str(pin) for pin in previous.pins)
    left = duration(longest) if held_for <= 0 or longest == held_for else f"{duration(held_for)} to {duration(longest)}"
    # If a key is pinned from now on and deployed soon, the pins that clients already have count.
    is_next = deployed is not None and deployed in pins
    showing = {deployed} if is_next else set(circumstances.chain)
    if showing and not set(before) & showing:
        yield finding("rotation-too-early", duration=left)
    for pin in before:
        if pin not in pins:
            yield finding("old-pin-dropped-too-early", pin=pin, duration=left)


def _attack(pins: tuple[str, ...], reading: Reading, circumstances: Circumstances) -> Iterator[Finding]:
    held = circumstances.held_keys
    chain = circumstances.chain
    # If the chain does not verify, nobody notes anything: that is another fault, not an attack.
    if held is not None and circumstances.chain_valid is not False:
        foreign = [pin for pin in pins if pin not in held]
        if chain and len(foreign) == len(pins) and not set(chain) & set(held):
            yield finding("hostile-pinning-by-misissued-certificate")
        elif not circumstances.deployed_key:
            for pin, span in ((str(each.pin), each.span) for each in reading.pins):
                if pin in foreign:
                    yield finding("hostile-pinning-ransompkp", span, pin=pin)
    backups = [frozenset(_pins_of(value)) - set(chain) for value in circumstances.visits]
    if len(backups) > 1 and all(backups) and len(set(backups)) == len(backups):
        yield finding("hpkp-supercookie", reason=f"{len(backups)} visitors were each sent another backup pin")
    elif (
        DEFAULT_MAX_MAX_AGE < (reading.max_age or 0) < 10**9
        and len(set(pins)) == 2
        and not (reading.include_subdomains or reading.report_uri or circumstances.visits or held)
        and chain
        and not set(pins) <= set(chain)
        and not any(each.pin and is_known(each.pin) and str(each.pin) not in chain for each in reading.pins)
    ):
        # The form of the published supercookie: one host, one backup that nobody can check, and the longest max-age.
        yield finding(
            "hpkp-supercookie",
            reason="one host alone, held for long, with a backup pin that may differ from visitor to visitor; "
            "compare what two visitors receive",
        )


def _pins_of(value: str) -> tuple[str, ...]:
    try:
        return tuple(str(pin) for pin in PublicKeyPins.parse(value).pins)
    except InvalidHeader:
        return ()
