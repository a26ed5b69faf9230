"""The expiry dates of a repository: what must be signed again soon, and whether the clock can be right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tuf.api.metadata import Signed  # pyright: ignore[reportPrivateImportUsage]

from dynpin.durations import duration
from dynpin.report import rfc3339

from .signed_files import NAMES

__all__ = ["LIFETIMES", "Expiry", "clock_fault", "expires_soon", "expiries", "expiry_of"]

_DAY = 86_400.0
# How long a signature is valid. For the list: somebody must sign again within this time. For the timestamp: so long an
# attacker who can hold back files can hide a newer list from a client.
LIFETIMES: Mapping[str, timedelta] = {
    "root": timedelta(days=5 * 365),
    "targets": timedelta(days=365),
    "snapshot": timedelta(days=365),
    "timestamp": timedelta(days=7),
}
# How long before the expiry a person is warned, in seconds: the signer needs time to fetch the keys.
_WARNING = {"root": 180 * _DAY, "targets": 30 * _DAY, "snapshot": 30 * _DAY, "timestamp": 1.5 * _DAY}
_DO = {
    "root": "dynpin recovery rotate-keys root, then dynpin recovery publish FOLDER",
    "targets": "dynpin recovery sign dynpin.toml, then dynpin recovery publish FOLDER",
    "snapshot": "dynpin recovery refresh FOLDER, with the key of snapshot beside that of timestamp",
    "timestamp": "dynpin recovery refresh FOLDER, which cron should do daily",
}
# How far apart the clock and the last signature may be, in seconds. Cron signs a timestamp daily, and two machines
# differ by minutes. The clock of a machine with an empty battery is wrong by years.
_BACK, _AHEAD = _DAY, 60 * _DAY


@dataclass(frozen=True, slots=True)
class Expiry:
    """The expiry of one role's signature.

    Attributes:
        role: ``"root"``, ``"targets"``, ``"snapshot"`` or ``"timestamp"``.
        version: the signed version.
        expires_at: seconds since the epoch, UTC.
        problem: what is wrong, and what to do; None if there is enough time.
    """

    role: str
    version: int
    expires_at: float
    problem: str | None


def expiry_of(role: str, now: float) -> datetime:
    """When a signature of this role expires that is made at `now` (seconds since the epoch, UTC)."""
    return datetime.fromtimestamp(int(now), UTC) + LIFETIMES[role]


def expiries(signed: Mapping[str, Signed], now: float) -> list[Expiry]:
    """The expiry of each role at `now` (seconds since the epoch, UTC)."""
    return [_expiry(role, each, now) for role, each in signed.items()]


def expires_soon(role: str, signed: Signed, now: float) -> bool:
    """Whether it has expired at `now`, or will expire so soon that a person is warned."""
    return signed.expires.timestamp() - now < _WARNING[role]


def clock_fault(signed: Mapping[str, Signed], now: float) -> str | None:
    """Why `now` cannot be the right time, compared with the last signature; None if it may be right.

    Args:
        signed: the signed files by role, local or published.
        now: seconds since the epoch, UTC, by the clock.
    """
    last = max((each.expires - LIFETIMES[role] for role, each in signed.items()), default=None)
    if last is None:
        return None
    at = last.timestamp()
    if at - _BACK <= now <= at + _AHEAD:
        return None
    apart = f"{duration(at - now)} later" if now < at else f"{duration(now - at)} ago"
    return (
        f"the clock of this machine says {rfc3339(now)}, and the last signature was made at {rfc3339(at)}, {apart}. "
        "What is signed by a wrong clock expires at the wrong time, and clients refuse it. Set the clock; if it is "
        "right, say so: --accept-clock"
    )


def _expiry(role: str, signed: Signed, now: float) -> Expiry:
    at = signed.expires.timestamp()
    problem = None
    if at <= now:
        problem = f"{NAMES[role]} has expired {duration(now - at)} ago: clients refuse the list. Do: {_DO[role]}"
    elif expires_soon(role, signed, now):
        problem = f"{NAMES[role]} expires in {duration(at - now)}: clients will refuse the list. Do: {_DO[role]}"
    return Expiry(role, signed.version, at, problem)
