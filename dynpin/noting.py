"""The effect of a response on a Known Pinned Host (RFC 7469 §2.3, §2.5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from dynpin.counts import counted, plural
from dynpin.errors import InvalidHeader
from dynpin.header import PublicKeyPins
from dynpin.hosts import KnownPinnedHost, is_ip_literal
from dynpin.pins import Pin
from dynpin.recovery import NotedRecovery, adopt
from dynpin.validation import validate

__all__ = ["DEFAULT_MAX_MAX_AGE", "Noting", "Outcome", "keep_root", "note"]

# RFC 7469 §4.1: on the order of 60 days.
DEFAULT_MAX_MAX_AGE = 60 * 24 * 60 * 60

Outcome = Literal["noted", "updated", "removed", "ignored"]


@dataclass(frozen=True, slots=True)
class Noting:
    """The effect of a response on a Known Pinned Host, and the reason.

    Attributes:
        outcome: ``"noted"``, ``"updated"``, ``"removed"`` or ``"ignored"``.
        reason: the decision, as text.
        section: the section of RFC 7469 with the rule.
        known_host: the entry to store, for ``"noted"`` and ``"updated"``; else None.
        remains: for a removed host, an entry without pins, to store until the pins would have expired. It has the root
            of recovery, or says that there was none (:mod:`dynpin.recovery`). Else None.
    """

    outcome: Outcome
    reason: str
    section: str
    known_host: KnownPinnedHost | None = None
    remains: KnownPinnedHost | None = None


def note(
    host: str,
    known: KnownPinnedHost | None,
    header: PublicKeyPins | InvalidHeader | None,
    chain: Sequence[Pin],
    now: float,
    *,
    certificates: Sequence[bytes] = (),
    max_max_age: int = DEFAULT_MAX_MAX_AGE,
    former: KnownPinnedHost | None = None,
) -> Noting:
    """Decide the effect of one response on a host. This stores nothing.

    Args:
        host: the canonical host that responded.
        known: the entry that applies to it now, congruent or superdomain (:func:`dynpin.hosts.applicable`).
        header: the first Public-Key-Pins field of the response (§2.3.1), the error that parsing it raised, or
            None if there was none.
        chain: the pins of the validated chain, leaf first; empty if TLS was not free of errors (§2.5).
        now: seconds since the epoch, UTC.
        certificates: the certificates of that chain, DER, since a static entry may contain exact certificates.
        max_max_age: the cap on max-age, in seconds (§2.3.3, §4.1).
        former: the host's own entry, even if it has expired, since its root of recovery may outlive its pins.
    """
    # §2.3.3: never an IP address.
    if is_ip_literal(host):
        return Noting("ignored", f"{host} is an IP address; only names are pinned", "2.3.3")
    if header is None:
        return Noting("ignored", f"{host} sent no Public-Key-Pins header", "2.3.1")
    # §2.1 rule 4: a malformed field is ignored, and what was noted stays.
    if isinstance(header, InvalidHeader):
        return Noting("ignored", f"the Public-Key-Pins header of {host} is malformed: {header}", "2.1")
    # §2.3.3: information from a report-only header is never cached. (It alone has no max-age.)
    if header.report_only or header.max_age is None:
        return Noting("ignored", "a report-only header is evaluated and never cached", "2.3.3")
    # §2.5: an error-free TLS connection, Pin Validation included.
    if not chain:
        return Noting("ignored", f"the connection to {host} has no verified certificate chain", "2.5")
    validation = validate(host, known, chain, certificates=certificates, now=now)
    if not validation.ok:
        return Noting("ignored", f"the connection failed Pin Validation: {validation.reason}", "2.5")
    # RFC 7469 §2.3.3: the metadata of a superdomain is never modified, so from here only the host's own entry counts.
    own = known if known is not None and known.host == host else None

    if own is not None and own.source == "static":
        return Noting("ignored", f"{host} has static pins, which stand until they expire or are forgotten", "2.7")
    # §2.1.1: pins of unknown algorithms are ignored. If no pin is left, the host is no longer known.
    if header.names_only_unknown_algorithms:
        return _removed(own, now, f"{host} pins keys by no algorithm that is known", "2.1.1")
    # §2.3.1: max-age=0 removes the host, also if the header has no pins, which §2.5 does not allow. The connection
    # passed Pin Validation, so the server has a pinned key, and to forget is the safer choice. This differs from
    # the RFC on purpose, as in Firefox and wget2.
    if header.max_age == 0:
        return _removed(own, now, f"{host} asks to be unpinned with max-age=0", "2.3.1")
    if not header.pins:
        return Noting("ignored", f"the header of {host} names no pin", "2.5")

    shown = frozenset(chain)
    if shown.isdisjoint(header.pins):
        return Noting("ignored", f"none of the pins that {host} names is in its own chain", "2.5")
    if shown.issuperset(header.pins):
        return Noting("ignored", f"{host} names no Backup Pin: every pin is in its chain", "2.5")

    # §2.5: the metadata becomes exactly that of this header. Of the old entry only a valid root is kept.
    max_age = min(header.max_age, max_max_age)
    entry = KnownPinnedHost(
        host=host,
        pins=header.pins,
        include_subdomains=header.include_subdomains,
        report_uri=header.report_uri,
        noted_at=now,
        expires_at=now + max_age,
        recovery=_recovery(host, known, former, header, now=now, expires_at=now + max_age),
    )
    capped = f", capped from {header.max_age}" if max_age < header.max_age else ""
    reason = f"{host} is pinned to {counted(len(entry.pins), 'key')} for {max_age} {plural(max_age, 'second')}{capped}"
    return Noting("noted" if own is None else "updated", reason, "2.5", entry)


def keep_root(entry: KnownPinnedHost, former: KnownPinnedHost | None, now: float) -> KnownPinnedHost:
    """An entry that another client has noted, with the living root of the one that it replaces: as after a header.

    Args:
        entry: the entry to store; it has an end.
        former: the host's own entry before, or None.
        now: seconds since the epoch, UTC.
    """
    noted, ends_at = _living(former, now)
    if noted is None or noted.standing is None or entry.expires_at is None:
        return entry
    named = None if entry.recovery is None else entry.recovery.standing
    return replace(entry, recovery=adopt(noted, ends_at, named, expires_at=entry.expires_at, now=now))


def _recovery(
    host: str,
    known: KnownPinnedHost | None,
    former: KnownPinnedHost | None,
    header: PublicKeyPins,
    *,
    now: float,
    expires_at: float,
) -> NotedRecovery | None:
    """The recovery of the new entry. If the host has no entry of its own, that of its superdomain counts."""
    noted, ends_at = _living(known, now) if known is not None and known.host == host else _living(former, now)
    if noted is None and known is not None:
        above, ends_at = _living(known, now)
        noted = None if above is None else NotedRecovery(above.standing)
    return adopt(noted, ends_at, header.recovery, expires_at=expires_at, now=now)


def _living(entry: KnownPinnedHost | None, now: float) -> tuple[NotedRecovery | None, float | None]:
    """The recovery of an entry, and when it ends; None if the host is no longer known."""
    if entry is None:
        return None, None
    noted, ends_at = entry.recovery or NotedRecovery(), entry.root_ends_at
    if ends_at is None or ends_at >= now:
        return noted, ends_at
    if entry.is_released(now):
        return None, None
    return replace(noted, standing=None, until=None, list_version=0), entry.expires_at


def _removed(own: KnownPinnedHost | None, now: float, reason: str, section: str) -> Noting:
    if own is None:
        return Noting("ignored", f"{reason}, and it has no entry of its own", section)
    # Keep the root: an attacker on the web server would send this to remove it, and to get a first visit again.
    noted, ends_at = _living(own, now)
    kept = replace((noted or NotedRecovery()).without_offer(), until=ends_at)
    remains = replace(own, pins=(), include_subdomains=False, report_uri=None, expires_at=now, recovery=kept)
    return Noting("removed", reason, section, remains=remains)
