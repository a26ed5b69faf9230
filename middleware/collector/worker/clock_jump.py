"""Retention by a clock that may be wrong: a clock that jumps ahead does not delete reports by their age at once.

A clock a year ahead would make every report too old. So after a jump nothing is deleted by age until the clock has
stood for three days, or a person has accepted it. A jump of less than a week deletes reports a week early at most. The
limit on the size holds all the time.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from dynpin.counts import counted

from ..formatting import when
from ..storage import AuditEntry, Filter, Jobs, Pruned, Retention, Storage

__all__ = ["PRUNED_AT", "ClockJump", "clock_jump", "prune"]

_log = logging.getLogger("dynpin.collector")
_DAY = 86_400.0
_JUMP_S, _STANDS_S = 7 * _DAY, 3 * _DAY
# Facts of the storage, so that all workers know them: the last deletion, and the jump. A jump at 0 is over.
PRUNED_AT, _JUMPED_FROM, _JUMPED_AT = "pruned_at", "clock_jumped_from", "clock_jumped_at"


@dataclass(frozen=True, slots=True)
class ClockJump:
    """A jump of the clock that nobody has accepted yet. Times are seconds since the epoch, UTC.

    Attributes:
        before: the last time before the jump.
        after: the first time after it.
    """

    before: float
    after: float

    @property
    def ends_at(self) -> float:
        """When the clock has stood long enough."""
        return self.after + _STANDS_S

    def __str__(self) -> str:
        days = counted(int((self.after - self.before) // _DAY), "day")
        return (
            f"old reports are kept, since the clock went from {when(self.before)} to {when(self.after)} UTC, {days} "
            "ahead. If it is wrong, set the clock. If it is right, run  dynpin collect prune --accept-clock  or wait "
            f"until {when(self.ends_at)} UTC"
        )


def clock_jump(storage: Jobs) -> ClockJump | None:
    """The jump because of which old reports are kept, or None."""
    after = storage.fact(_JUMPED_AT)
    return ClockJump(storage.fact(_JUMPED_FROM) or 0.0, after) if after else None


def prune(
    storage: Storage, retention: Retention, now: float, *, accept_clock: bool = False
) -> tuple[Pruned, ClockJump | None]:
    """Delete what the retention does not keep; after a jump of the clock only what is too much.

    Args:
        storage: the storage.
        retention: how much is kept.
        now: seconds since the epoch, UTC.
        accept_clock: a person says that the clock is right.

    Returns:
        what was deleted, and the jump because of which old reports are kept.
    """
    last, known = storage.fact(PRUNED_AT), clock_jump(storage)
    if last is None:
        last = next((report.received_at for report in storage.reports(Filter(), limit=1).entries), now)
    jump = known
    if not accept_clock and now - last > _JUMP_S:  # also in an earlier jump: that clock has not stood
        jump = ClockJump(last, now)
    elif accept_clock or (known is not None and not known.after <= now < known.ends_at):
        jump = None
    # Everything since 1970 is younger than this. The deletion comes first, since a full disk has no space for a fact.
    pruned = storage.prune(retention if jump is None else replace(retention, days=now / _DAY))
    if jump != known:
        _store(storage, jump, now)
    storage.set_fact(PRUNED_AT, now)
    return pruned, jump


def _store(storage: Storage, jump: ClockJump | None, now: float) -> None:
    """Store a new jump, or that the last one is over; and tell people."""
    if jump is None:
        entry = AuditEntry(now, "the worker", "", "clock-stands", f"{when(now)} UTC")
        _log.warning("old reports are deleted again: the clock was set, accepted, or has stood for three days")
    else:
        storage.set_fact(_JUMPED_FROM, jump.before)
        entry = AuditEntry(now, "the worker", "", "clock-jumped", f"{when(jump.before)} to {when(jump.after)} UTC")
        _log.warning("%s", jump)
    storage.set_fact(_JUMPED_AT, 0.0 if jump is None else jump.after)
    storage.record(entry)
