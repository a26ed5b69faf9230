"""What of a repository expires when, and what must be signed again soon."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tuf.api.metadata import Signed  # pyright: ignore[reportPrivateImportUsage]

from dynpin.durations import duration

__all__ = ["Expiry", "expiries"]

_DAY = 86_400.0
# How long before the end a person is told, in seconds: who signs needs time to fetch the keys.
_WARNING = {"root": 180 * _DAY, "targets": 30 * _DAY, "snapshot": 30 * _DAY, "timestamp": 1.5 * _DAY}
_WHAT = {"root": "the root", "targets": "the list", "snapshot": "the snapshot", "timestamp": "the timestamp"}
_DO = {
    "root": "dynpin recovery rotate-keys, sign, publish",
    "targets": "dynpin recovery sign, publish",
    "snapshot": "dynpin recovery sign, publish",
    "timestamp": "dynpin recovery refresh, which cron should do daily",
}


@dataclass(frozen=True, slots=True)
class Expiry:
    """When the signature of one role ends.

    Attributes:
        role: ``"root"``, ``"targets"``, ``"snapshot"`` or ``"timestamp"``.
        version: the version that is signed.
        expires_at: seconds since the epoch, UTC.
        problem: what is wrong with that, and what to do; None where there is time.
    """

    role: str
    version: int
    expires_at: float
    problem: str | None


def expiries(signed: Mapping[str, Signed], now: float) -> list[Expiry]:
    """When each of them ends, as of `now` (seconds since the epoch, UTC)."""
    return [_expiry(role, each, now) for role, each in signed.items()]


def _expiry(role: str, signed: Signed, now: float) -> Expiry:
    at = signed.expires.timestamp()
    problem = None
    if at <= now:
        problem = f"{_WHAT[role]} has expired {duration(now - at)} ago: clients refuse the list. Do: {_DO[role]}"
    elif at - now < _WARNING[role]:
        problem = f"{_WHAT[role]} expires in {duration(at - now)}: clients will refuse the list. Do: {_DO[role]}"
    return Expiry(role, signed.version, at, problem)
