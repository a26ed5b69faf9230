"""The verdicts of triage, in words: what each means, how bad it is, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["SEVERITIES", "VERDICTS", "Severity", "Verdict", "VerdictName"]

VerdictName = Literal[
    "unknown-ca",
    "foreign-key",
    "private-root",
    "path-variance",
    "renewal-new-key",
    "wrong-pin-set",
    "retired-intermediate",
    "stale-policy",
    "clock-skew",
    "inconsistent",
    "undecided",
]
Severity = Literal["attack", "fault", "false-alarm", "unclear"]

# What a severity is called on the pages, worst first.
SEVERITIES: dict[str, str] = {
    "attack": "Possible attack",
    "fault": "Fault in the policy",
    "unclear": "Unclear",
    "false-alarm": "False alarm",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """One kind of cause."""

    name: VerdictName
    title: str
    severity: Severity
    summary: str
    advice: str


_ALL = (
    Verdict(
        "unknown-ca",
        "Interception by an unknown CA",
        "attack",
        "The client accepted a chain that ends in a CA which is neither public nor yours, and which holds none of the "
        "pinned keys. Somebody between the client and the site shows a certificate of their own.",
        "Find out which network the client was in. If the CA is yours, name it with --roots (roots= in Python), and "
        "this becomes a fault of the policy. Do not change the pins: they did their work.",
    ),
    Verdict(
        "foreign-key",
        "A trusted CA signed a key that is not yours",
        "attack",
        "The chain is sound, and the key in its first certificate is in nobody's inventory. A CA was tricked or "
        "forced, or someone in the house ordered a certificate without saying so.",
        "Ask who ordered the certificate with this serial number. If nobody did: report it to the CA, which must "
        "revoke it, and look for it in the Certificate Transparency logs.",
    ),
    Verdict(
        "private-root",
        "A private root on the client",
        "fault",
        "The chain ends in a root that names itself as an inspecting proxy or virus scanner, installed on the client.",
        "Nothing is wrong with the site. Browsers skip pinning for such roots; exempt these clients, or accept that "
        "they are refused.",
    ),
    Verdict(
        "path-variance",
        "Path variance",
        "false-alarm",
        "The pinned key is in a certificate that the server sent, and not in the path that the client built: it found "
        "another way to a root it trusts. The keys of the site are the right ones.",
        "Pin the leaf key and a backup, or a certificate that is in every path; never a root that clients may bypass.",
    ),
    Verdict(
        "renewal-new-key",
        "Renewal with a new key",
        "fault",
        "The certificate was issued just before, for a key that the policy does not name: renewed with a new key.",
        "If you renewed: go back to the old key, or deploy a Backup Pin's key, and have renewals reuse the key. "
        "If you did not, treat it as an attack: a CA signed somebody else's key.",
    ),
    Verdict(
        "wrong-pin-set",
        "The wrong pins are deployed",
        "fault",
        "The chain is sound and not new, and none of its keys is among the pins: the header names keys that the site "
        "does not show.",
        "Build the header from the certificate that is deployed (dynpin pin fullchain.pem), and keep one Backup Pin "
        "outside the chain.",
    ),
    Verdict(
        "retired-intermediate",
        "The pinned intermediate is gone",
        "fault",
        "A pinned key belongs to a CA certificate that was seen before, and the CA now signs with another one.",
        "CAs change intermediates without asking. Pin the leaf key and a backup key of your own instead.",
    ),
    Verdict(
        "stale-policy",
        "The client holds an old policy",
        "fault",
        "The key is yours, or the entry had run out already; what the client remembers is an older set of pins.",
        "Wait max-age after the last response with the old header before its keys are dropped (RFC 7469 §2.3.3).",
    ),
    Verdict(
        "clock-skew",
        "The clock of the client is wrong",
        "false-alarm",
        "The time in the report lies in the future, or outside the life of the certificate.",
        "Set the clock of the client: pins expire by it (RFC 7469 §2.3.3), and certificates too.",
    ),
    Verdict(
        "inconsistent",
        "Forged or inconsistent",
        "unclear",
        "The report contradicts itself; no client that follows RFC 7469 sends this.",
        "Mute the group if more of them come; anybody who knows the report-uri can write to it.",
    ),
    Verdict(
        "undecided",
        "Too little to tell",
        "unclear",
        "There are no pins to compare, or no certificate that can be read.",
        "Look at the raw report, and at the program that sent it.",
    ),
)

VERDICTS: dict[VerdictName, Verdict] = {verdict.name: verdict for verdict in _ALL}
