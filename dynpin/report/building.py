"""A violation report, and how it is built: with every member (RFC 7469 §3)."""

from __future__ import annotations

import hashlib
import json
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, get_args

from dynpin.errors import UnpinnableKey
from dynpin.hosts import KnownPinnedHost
from dynpin.pins import Pin

from .times import rfc3339

__all__ = [
    "RECOVERY_STATES",
    "RecoveryState",
    "Report",
    "ReportedRecovery",
    "build_report",
    "certificate_pin",
    "grouping_key",
]


RecoveryState = Literal["asked", "failed", "not-installed", "off"]
RECOVERY_STATES: tuple[RecoveryState, ...] = get_args(RecoveryState)


@dataclass(frozen=True, slots=True)
class ReportedRecovery:
    """What a client with a noted root did about the violation. Only dynpin has this member.

    Attributes:
        state: ``"asked"``: the client fetches the signed list in the background; ``"failed"``: the store could not be
            written; ``"not-installed"``: python-tuf is missing; ``"off"``: the program uses no signed list.
        list_version: the version of the last list that the client applied to this host; 0 if there was none.
    """

    state: RecoveryState
    list_version: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    """One violation report (RFC 7469 §3).

    Attributes:
        hostname: the host of the original request.
        port: its port, or None if the client could not tell (behind a proxy, for instance).
        noted_hostname: the Known Pinned Host whose entry applied; None if the sender did not say.
        include_subdomains: whether that entry covers subdomains; None if the sender did not say.
        date_time: when the failure was seen, seconds since the epoch, UTC; None if unknown.
        effective_expiration_date: when the entry expires, seconds since the epoch, UTC; None if it never
            does, or is unknown.
        known_pins: the pins of the entry.
        served_chain: the certificates that the server sent, PEM, leaf first.
        validated_chain: the chain that the client built and verified, PEM, leaf first.
        flags: stable names of faults that were found when the report was read; empty for a report that was built.
        extra: members that are not in RFC 7469, unchanged.
        recovery: what the client did about recovery; None if it had no root, or did not say.
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
    recovery: ReportedRecovery | None = None

    def to_dict(self) -> dict[str, object]:
        """The report as the JSON object of RFC 7469 §3. Unknown values are null."""
        told: dict[str, object] = {
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
        if self.recovery is not None:
            told["recovery"] = {"state": self.recovery.state, "list-version": self.recovery.list_version}
        return told

    def to_json(self) -> str:
        """The body to POST to a report-uri."""
        return json.dumps(self.to_dict())


def build_report(
    *,
    host: str,
    port: int | None,
    known_host: KnownPinnedHost,
    served: Iterable[bytes],
    validated: Iterable[bytes],
    now: float,
    recovery: ReportedRecovery | None = None,
) -> Report:
    """Build the report of a connection that failed Pin Validation.

    Args:
        host: the canonical host of the request.
        port: its port, or None if the client cannot tell.
        known_host: the entry that applied.
        served: the DER certificates that the server sent.
        validated: the DER certificates of the chain that the client built.
        now: seconds since the epoch, UTC.
        recovery: what the client does about recovery.
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
        recovery=recovery,
    )


def certificate_pin(pem: str) -> Pin | None:
    """The pin of one certificate of a report, or None if the text is not a certificate that can be pinned."""
    # Only short texts are cached, so that a hostile report cannot fill the memory.
    return _short_certificate_pin(pem) if len(pem) <= 4096 else _certificate_pin(pem)


def _certificate_pin(pem: str) -> Pin | None:
    try:
        return Pin.from_certificate(pem.encode("ascii", "replace"))
    except UnpinnableKey:
        return None


_short_certificate_pin = lru_cache(maxsize=1024)(_certificate_pin)


def grouping_key(report: Report, *, mode: str = "") -> str:
    """32 hexadecimal digits that are the same for all reports of one cause.

    They depend on the noted host, the host, the port, the known pins in any order, the pins of the validated chain and
    the mode; not on dates. Chromium compared the same.
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


def _optional_rfc3339(seconds: float | None) -> str | None:
    return None if seconds is None else rfc3339(seconds)
