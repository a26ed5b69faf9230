"""Move a ramp: a thread asks the collector and stores the position, and the header is made from the position."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Protocol

from dynpin.errors import PolicyError

from ..background import BackgroundLoop
from ..steps import ASK_EVERY, CollectorAnswer, Position, Ramp, decide, reported, shown
from .reports import ask, intake_refusal
from .state import KeptRamp

__all__ = ["Driver", "driver"]

logger = logging.getLogger("dynpin.middleware")


class Ramped(Protocol):
    """An object that may have a ramp."""

    @property
    def ramp(self) -> Ramp | None:
        """The ramp of the current inventory, or None."""
        ...

    @property
    def kept_ramp(self) -> KeptRamp | None:
        """The stored position, or None."""
        ...


class Driver(BackgroundLoop[Ramped, str]):
    """Moves ramps up while no reports come, and logs why a ramp does not move.

    The first process of a server asks the collector, and the others find the answer in the file.

    Args:
        interval: seconds between two looks at the file.
        clock: seconds since the epoch, UTC.
    """

    def __init__(self, interval: float = 60.0, clock: Callable[[], float] = time.time) -> None:
        super().__init__("dynpin-ramp", interval)
        self.clock = clock

    def add(self, ramped: Ramped) -> None:
        """Move this ramp as long as its object exists. A second call does nothing."""
        self.include(ramped, "")

    def look_at(self, member: Ramped, before: str) -> str:
        """Ask the collector if it is time, and move. Log each new message once."""
        if member.ramp is None or member.kept_ramp is None:
            return ""
        told = self._drive(member.ramp, member.kept_ramp)
        if told and told != before:
            logger.error("%s", told)
        return told

    def _drive(self, ramp: Ramp, kept: KeptRamp) -> str:
        try:
            now, position = kept.now(self.clock), kept.read()
            if not ramp.is_on:
                if position is not None and position.max_age != ramp.levels[0]:
                    kept.change(ramp.begin(now), lambda _, at: ramp.begin(at), now)
                    logger.warning("The policy is not enforced. Its ramp starts again when it is enforced")
                return ""
            if position is None or _is_time(position, now):
                before, position = kept.change(ramp.begin(now), self._deciding(ramp, position, now), now)
                if position.max_age != before.max_age:
                    logger.warning("The ramp moves up, since no reports have come: %s", shown(position.max_age))
        except PolicyError as error:
            return f"The ramp stays where it is: {error}"
        if position.failure:
            return f"The ramp stays at {shown(position.max_age)}: {position.failure}"
        if position.open_groups:
            return (
                f"Clients report violations: {reported(position, ramp)}. The ramp stays at {shown(position.max_age)}. "
                "Look at the groups there: resolve those that are fixed, and mute those that are no fault of the site. "
                "Until then, dynpin ramp back makes max-age shorter"
            )
        return ""

    def _deciding(self, ramp: Ramp, position: Position | None, now: float) -> Callable[[Position, float], Position]:
        """The decision about the position. The collector is asked here, before the position is locked."""
        before = position or ramp.begin(now)
        answer = ask(ramp, min(before.began_at, now))
        if decide(before, ramp, answer, now).max_age != before.max_age:
            refusal = intake_refusal(ramp)
            answer = CollectorAnswer(failure=refusal) if refusal else answer
        # Another process, or another node, may have asked in the meantime.
        return lambda current, at: decide(current, ramp, answer, at) if _is_time(current, at) else current


def _is_time(position: Position, now: float) -> bool:
    """Whether it is time to ask the collector."""
    return position.asked_at is None or not 0 <= now - position.asked_at < ASK_EVERY


driver = Driver()
driver.survive_forks()
