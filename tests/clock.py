"""The clock that tests give to what they test."""

from __future__ import annotations

__all__ = ["BASE", "Clock"]

# Some real moment: the times of a scenario are seconds after that.
BASE = 1_800_000_000.0


class Clock:
    """A clock that stands still until the test moves it."""

    def __init__(self, now: float = BASE) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += seconds
