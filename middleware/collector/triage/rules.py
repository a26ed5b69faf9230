"""The rules of triage: what a violation report means. They use no network and no database."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

from dynpin.counts import counted
from dynpin.hosts import KnownPinnedHost, superdomains
from dynpin.pins import Pin
from dynpin.report import RecoveryState, Report, rfc3339
from dynpin.validation import validate

from .certificates import Decoded, decode, names_cover
from .diagnosis import Certificate, Diagnosis, KnownPin, RootKind
from .roots import Roots
from .signatures import Signatures
from .verdicts import VerdictName

__all__ = ["Case", "diagnose"]

_DAY = 86_400
# A certificate younger than this when the report was made was probably just deployed.
_FRESH_DAYS = 30
_AHEAD = 3600
# Names of a certificate that a diagnosis has. A certificate may have thousands.
_SHOWN_NAMES = 20
# Words in the names of roots of inspecting products. These names are public, and anybody can forge them.
_INSPECTORS = (
    "avast", "avg ", "bitdefender", "blue coat", "charles proxy", "cisco umbrella", "do_not_trust_fiddler", "eset ssl",
    "fortigate", "fortinet", "kaspersky", "mitmproxy", "netskope", "palo alto", "portswigger", "sophos", "superfish",
    "zscaler",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One report, and its circumstances.

    Args:
        report: the report.
        received_at: when it arrived, seconds since the epoch, UTC.
        mode: ``"enforce"`` or ``"report-only"``, from its report-uri.
        roots: the known CAs.
        keys: the operator's own keys, pin to name; empty if there is no inventory.
        seen: CAs of earlier reports, pin to name, for the known pins of this report.
        root_before: the kind of root that an earlier judgement found; None if there was none.
        signatures: verifies signatures, up to a limit for one report.
    """

    report: Report
    received_at: float
    mode: str
    roots: Roots
    keys: Mapping[Pin, str] = field(default_factory=dict[Pin, str])
    seen: Mapping[Pin, str] = field(default_factory=dict[Pin, str])
    root_before: RootKind | None = None
    signatures: Signatures = field(default_factory=Signatures)

    @cached_property
    def served(self) -> tuple[Decoded, ...]:
        """The certificates that the server sent."""
        return tuple(decode(pem) for pem in self.report.served_chain)

    @cached_property
    def validated(self) -> tuple[Decoded, ...]:
        """The chain that the client built."""
        return tuple(decode(pem) for pem in self.report.validated_chain)

    @cached_property
    def links(self) -> tuple[bool | None, ...]:
        """For each certificate of the validated chain but the last: whether the next one signed it."""
        return _links(self.validated, self.signatures)

    @cached_property
    def served_links(self) -> tuple[bool | None, ...]:
        """The same for the served chain."""
        return _links(self.served, self.signatures)

    @cached_property
    def served_path(self) -> tuple[Decoded, ...]:
        """The served leaf, its issuer, and so on up, in any order of sending; without other served certificates."""
        path = list(self.served[:1])
        for one in path:  # the loop appends to it
            path += [above for above in self.served if above not in path and self.signatures.is_issued_by(one, above)]
        return tuple(path)

    @cached_property
    def root_kind(self) -> RootKind:
        """The kind of root of the validated chain; see :meth:`Roots.kind`."""
        if not self.validated:
            return "unknown"
        return self.roots.kind(self.validated, self.root_before, self.signatures)

    @property
    def is_report_only_by_times(self) -> bool:
        """Whether the entry expires at the time of the report. Chromium does so, as it stores no report-only policy."""
        observed, expires = self.report.date_time, self.report.effective_expiration_date
        return observed is not None and expires is not None and abs(observed - expires) < 1

    def matched(self, chain: Sequence[Decoded]) -> Pin | None:
        """The known pin that a chain contains, by the rule of Pin Validation (RFC 7469 §2.6)."""
        known = KnownPinnedHost(
            host=self.report.hostname,
            pins=self.report.known_pins,
            include_subdomains=False,
            report_uri=None,
            noted_at=0.0,
            expires_at=None,
        )
        return validate(self.report.hostname, known, [one.pin for one in chain if one.pin is not None]).matched


Found = tuple[VerdictName, list[str]] | None


def diagnose(case: Case) -> Diagnosis:
    """The verdict of the first rule that applies. Strange facts that decide nothing are in the notes."""
    name, reasons = next(found for rule in _RULES if (found := rule(case)) is not None)
    return Diagnosis(
        verdict=name,
        reasons=reasons,
        notes=_notes(case),
        failing=_failing(case, name),
        root=case.root_kind,
        report_only_inferred=case.is_report_only_by_times,
        known_pins=[KnownPin(pin=str(pin), key=case.keys.get(pin)) for pin in case.report.known_pins],
        served=_chain(case, case.served, case.served_links),
        validated=_chain(case, case.validated, case.links),
    )


def _chain(case: Case, chain: Sequence[Decoded], links: Sequence[bool | None]) -> list[Certificate]:
    return [
        Certificate(
            subject=one.subject,
            issuer=one.issuer,
            serial=one.serial,
            names=list(one.names[:_SHOWN_NAMES]),
            more_names=len(one.names[_SHOWN_NAMES:]),
            not_before=None if one.not_before is None else rfc3339(one.not_before),
            not_after=None if one.not_after is None else rfc3339(one.not_after),
            key=one.key,
            pin=None if one.pin is None else str(one.pin),
            matches=one.pin is not None and one.pin in case.report.known_pins,
            own_key=None if one.pin is None else case.keys.get(one.pin),
            is_ca=one.is_ca,
            self_issued=one.is_self_issued,
            signed_by_next=signed,
            fingerprint=one.fingerprint,
            fault=one.fault,
        )
        for one, signed in zip(chain, (*links, None), strict=False)
    ]


# -- the rules, in their order -----------------------------------------------------------------------------------------


def _contradiction(case: Case) -> Found:
    report, reasons = case.report, list[str]()
    noted = report.noted_hostname
    if noted is not None and noted != report.hostname:
        if noted not in superdomains(report.hostname):
            reasons.append(f"{noted} is not a superdomain of {report.hostname}, so its entry cannot apply (§2.3.3).")
        elif report.include_subdomains is False:
            reasons.append(f"The entry of {noted} does not assert includeSubDomains, so it cannot apply (§2.3.3).")
    held = case.matched(case.validated)
    if held is not None:
        reasons.append(f"The validated chain contains the known pin {held}, so there is no violation (§2.6).")
    for index, signed in enumerate(case.links):
        if signed is False:
            below, above = case.validated[index], case.validated[index + 1]
            reasons.append(f"“{below.subject}” is not signed by “{above.subject}”, the certificate above it.")
    if case.served and case.validated and not _same(case.served[0], case.validated[0]):
        reasons.append("The served and the validated chain begin with different certificates.")
    leaf = case.validated[0] if case.validated else None
    if leaf is not None and leaf.names and not names_cover(leaf.names, report.hostname):
        reasons.append(f"The certificate is for {', '.join(leaf.names[:4])}, not for {report.hostname}.")
    return ("inconsistent", reasons) if reasons else None


def _too_little(case: Case) -> Found:
    if not case.report.known_pins:
        return "undecided", ["The report has no known pins."]
    readable = [one for one in (*case.served, *case.validated) if one.pin is not None]
    if not readable:
        return "undecided", ["No certificate of the report can be read."]
    if not case.validated or any(one.pin is None or one.certificate is None for one in case.validated):
        held = case.matched(case.served_path)
        if held is None:
            return "undecided", ["The validated chain is missing or cannot be read, and no served certificate matches."]
    return None


def _other_path(case: Case) -> Found:
    # Only the served path counts: an interceptor may also send the site's true certificates.
    held = case.matched(case.served_path)
    if held is None:
        return None
    pinned = next(one for one in case.served if one.pin == held)
    reasons = [
        f"The known pin {held} is the key of “{pinned.subject}”, which the server sent.",
        "No certificate of the path that the client built has a pinned key.",
    ]
    if case.validated:
        reasons.append(f"The client's path ends in “{case.validated[-1].subject}”.")
    return "path-variance", reasons


def _wrong_clock(case: Case) -> Found:
    observed, leaf = case.report.date_time, case.validated[0]
    if observed is None:
        return None
    if observed > case.received_at + _AHEAD:
        return "clock-skew", [
            f"The client's clock said {rfc3339(observed)}, but the report arrived at {rfc3339(case.received_at)}."
        ]
    if leaf.not_before is not None and leaf.not_after is not None and not leaf.not_before <= observed <= leaf.not_after:
        return "clock-skew", [
            f"The certificate was not valid at {rfc3339(observed)}, the time of the client's clock "
            f"({rfc3339(leaf.not_before)} to {rfc3339(leaf.not_after)})."
        ]
    return None


def _foreign_root(case: Case) -> Found:
    if case.root_kind != "unknown":
        return None
    root = case.validated[-1]
    named = f"{root.subject} {root.issuer}".lower()
    end = root.subject if root.is_self_issued else root.issuer
    inspector = next((name for name in _INSPECTORS if name in named), None)
    if inspector is not None:
        return "private-root", [f"The chain ends in “{end}”, the name of a product that inspects connections."]
    return "unknown-ca", [f"The chain ends in “{end}”, which is neither a public CA nor one of yours."]


def _known_key(case: Case) -> Found:
    leaf = case.validated[0]
    name = None if leaf.pin is None else case.keys.get(leaf.pin)
    if name is not None:
        return "stale-policy", [f"The leaf has your key {name}, but the client's entry does not contain it."]
    return None


def _expired_entry(case: Case) -> Found:
    observed, expires = case.report.date_time, case.report.effective_expiration_date
    if observed is not None and expires is not None and expires < observed - 1:
        return "stale-policy", [
            f"The entry had expired on {rfc3339(expires)}, before the report of {rfc3339(observed)}."
        ]
    return None


def _not_our_key(case: Case) -> Found:
    if not case.keys:
        return None
    leaf = case.validated[0]
    return "foreign-key", [
        f"The key {leaf.pin} of “{leaf.subject}” is not in the inventory of {counted(len(case.keys), 'key')}.",
        f"“{leaf.issuer}” issued it, serial number {leaf.serial}.",
    ]


def _gone_intermediate(case: Case) -> Found:
    for pin in case.report.known_pins:
        name = case.seen.get(pin)
        if name is not None:
            return "retired-intermediate", [
                f"The known pin {pin} is the key of the CA “{name}”, seen in earlier reports.",
                f"The leaf is now issued by “{case.validated[0].issuer}”.",
            ]
    return None


def _fresh_certificate(case: Case) -> Found:
    leaf, observed = case.validated[0], case.report.date_time
    if observed is None or leaf.not_before is None or case.is_report_only_by_times:
        return None
    days = (observed - leaf.not_before) / _DAY
    if days > _FRESH_DAYS:
        return None
    return "renewal-new-key", [
        f"“{leaf.subject}” was issued {_days(days)} before the report.",
        "Its key is not pinned.",
    ]


def _wrong_pins(case: Case) -> Found:
    reasons = [
        f"No certificate of the chain has a pinned key: {len(case.validated)} in the path, {len(case.served)} served."
    ]
    if len(case.report.known_pins) == 1:
        reasons.append("The policy has only one pin, so it has no Backup Pin (§4.3).")
    return "wrong-pin-set", reasons


_RULES: tuple[Callable[[Case], Found], ...] = (
    _contradiction,
    _too_little,
    _other_path,
    _known_key,
    # Possible attacks come before harmless causes, so that a wrong clock cannot hide an attack.
    _foreign_root,
    _not_our_key,
    _wrong_clock,
    _expired_entry,
    _gone_intermediate,
    _fresh_certificate,
    _wrong_pins,
)


def _failing(case: Case, verdict: VerdictName) -> int | None:
    """Which certificate of the validated chain to look at first."""
    if False in case.links:
        return case.links.index(False)
    if not case.validated or case.matched(case.validated) is not None:
        return None
    return len(case.validated) - 1 if verdict in ("unknown-ca", "private-root", "path-variance") else 0


_RECOVERY: dict[RecoveryState, str] = {
    "asked": "is fetching the signed list now",
    "failed": "could not ask for the signed list, since it could not write to its store",
    "not-installed": "cannot read a signed list, since it does not have python-tuf",
    "off": "does not use signed lists, since its program has switched them off",
}


def _notes(case: Case) -> list[str]:
    notes: list[str] = []
    report = case.report
    if case.is_report_only_by_times:
        note = "The entry expires at the moment of the report: the policy is report-only."
        notes.append(note if case.mode == "report-only" else f"{note} Its report-uri says {case.mode}.")
    if report.date_time is not None and report.date_time > case.received_at + _AHEAD:
        notes.append(f"The clock of the client was {_days((report.date_time - case.received_at) / _DAY)} ahead.")
    if report.date_time is not None and case.received_at - report.date_time > _DAY:
        notes.append(f"The report came {_days((case.received_at - report.date_time) / _DAY)} after it was made.")
    if report.recovery is not None:
        last, done = report.recovery.list_version, _RECOVERY[report.recovery.state]
        taken = f"The last list that it accepted was version {last}" if last else "It has accepted no list so far"
        notes.append(f"The client had noted a root of recovery, and {done}. {taken}.")
    if case.root_kind == "retired":
        notes.append("The root is in no current store, but the certificates have the marks of a public CA.")
    for one in (*case.served, *case.validated):
        if one.fault:
            notes.append(f"Certificate {one.pem[:60].strip()!r}…: {one.fault}.")
    return list(dict.fromkeys(notes))[:20]


def _links(chain: Sequence[Decoded], signatures: Signatures) -> tuple[bool | None, ...]:
    return tuple(signatures.is_issued_by(one, above) for one, above in pairwise(chain))


def _days(days: float) -> str:
    return counted(round(days), "day")


def _same(one: Decoded, other: Decoded) -> bool:
    return one.pin == other.pin or one.fingerprint == other.fingerprint
