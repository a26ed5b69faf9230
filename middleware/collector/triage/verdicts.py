"""The verdicts of triage: the meaning, the severity and the advice of each."""

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

# The names of the severities on the pages, worst first.
SEVERITIES: dict[str, str] = {
    "attack": "Possible attack",
    "fault": "Fault in the policy",
    "unclear": "Unclear",
    "false-alarm": "False alarm",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """One kind of verdict."""

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
        "The client trusts a chain without a pinned key. The chain ends in a CA that is neither public nor one of your "
        "roots. If it is not your own CA, somebody between the client and the site shows a certificate of their own.",
        "Compare the pin of the leaf with the key on your server (dynpin pin fullchain.pem). If they differ, find out "
        "which network the client was in, and do not change the pins: they did their work. If they are the same, the "
        "CA is yours: name it in roots of the inventory, or with --roots (roots= in Python); then the group gets "
        "another verdict.",
    ),
    Verdict(
        "foreign-key",
        "A trusted CA signed a key that is not yours",
        "attack",
        "The chain is valid, but the key of its first certificate is not in your inventory. A CA was tricked or "
        "forced, or somebody in your company ordered a certificate and told nobody.",
        "Compare the pin of the leaf with the key on your server (dynpin pin fullchain.pem). If they are the same, you "
        "have deployed a key that clients have not pinned: go back to a pinned key. If they differ, ask who ordered "
        "the certificate with this serial number. If nobody did, report it to the CA, which must revoke it, and search "
        "for it in the Certificate Transparency logs.",
    ),
    Verdict(
        "private-root",
        "A private root on the client",
        "fault",
        "The chain ends in a root on the client. Its name is that of an inspecting proxy or a virus scanner.",
        "If you know the product, nothing is wrong with the site. Browsers ignore pins for such roots. Exempt these "
        "clients, or accept that they refuse the site. Anybody can give a root this name: if nobody uses the product "
        "on these clients, this is an attack.",
    ),
    Verdict(
        "path-variance",
        "Path variance",
        "false-alarm",
        "The pinned key is in a certificate that the server sent, but not in the path that the client built. The "
        "client found another path to a root that it trusts. The site has the right keys.",
        "Pin the leaf key and a backup key, or a certificate that is in every path; never a root that paths may skip.",
    ),
    Verdict(
        "renewal-new-key",
        "Renewal with a new key",
        "fault",
        "The certificate was issued shortly before the report, for a key that is not pinned: a renewal with a new key.",
        "If you renewed the certificate, go back to the old key or to the key of a Backup Pin, and let renewals reuse "
        "the key. If you did not, this is an attack: a CA signed somebody else's key.",
    ),
    Verdict(
        "wrong-pin-set",
        "The wrong pins are deployed",
        "fault",
        "The chain is valid and not new, but none of its keys is pinned. The header has pins of keys that the site "
        "does not show.",
        "Make the header from the deployed certificate (dynpin pin fullchain.pem), and keep one Backup Pin outside "
        "the chain.",
    ),
    Verdict(
        "retired-intermediate",
        "The pinned intermediate is gone",
        "fault",
        "A pinned key belongs to a CA certificate of earlier reports, but the CA now signs with another certificate.",
        "CAs change their intermediates at any time. Pin the leaf key and a backup key of your own instead.",
    ),
    Verdict(
        "stale-policy",
        "The client holds an old policy",
        "fault",
        "The client has an older set of pins: either the key is yours, or the client's entry had already expired.",
        "Before you stop using a key, wait for max-age after the last response that pinned it (RFC 7469 §2.3.3).",
    ),
    Verdict(
        "clock-skew",
        "The clock of the client is wrong",
        "false-alarm",
        "The time in the report is in the future, or the certificate was not valid then.",
        "Set the clock of the client: pins (RFC 7469 §2.3.3) and certificates expire by it.",
    ),
    Verdict(
        "inconsistent",
        "Forged or inconsistent",
        "unclear",
        "The report contradicts itself. A client that follows RFC 7469 does not send such a report.",
        "Mute the group if more reports come. Anybody who knows the report-uri can send reports.",
    ),
    Verdict(
        "undecided",
        "Too little to tell",
        "unclear",
        "The report has no known pins, or no certificate that can be read.",
        "Look at the raw report, and at the program that sent it.",
    ),
)

VERDICTS: dict[VerdictName, Verdict] = {verdict.name: verdict for verdict in _ALL}
