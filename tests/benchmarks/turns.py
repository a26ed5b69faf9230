"""Two ways to do the same, side by side in one run, so that a busy machine slows both alike."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Iterator

__all__ = ["Turns", "against", "tell"]


def tell(what: str, **figures: object) -> None:
    print(f"\n{what:<48}" + "  ".join(f"{name} {value}" for name, value in figures.items()))


def against(aim: float, figure: float) -> str:
    """What the figure should be at most, and whether it is: told, not asserted, since other work slows a machine."""
    return f"{aim:g} {'reached' if figure <= aim else 'missed'}"


class Turns:
    """Two ways to do the same that take turns, and how long each turn took.

    Processor time counts this process alone; wall time is what a person waits.
    """

    def __init__(self) -> None:
        self._processor: tuple[list[float], list[float]] = ([], [])
        self._wall: tuple[list[float], list[float]] = ([], [])

    def order(self) -> tuple[bool, bool]:
        """Plain and pinned, in the order of the next two turns."""
        return (False, True) if len(self._wall[0]) % 2 else (True, False)

    @contextlib.contextmanager
    def turn(self, pinned: bool) -> Iterator[None]:
        """Time what is done within as one turn."""
        worked, waited = time.process_time(), time.perf_counter()
        yield
        self._wall[pinned].append(time.perf_counter() - waited)
        self._processor[pinned].append(time.process_time() - worked)

    def tell_processor(self, what: str, each: int, aim: float | None = None) -> None:
        """Print the ratio of the processor time.

        Args:
            what: what was done.
            each: how often it was done in a turn.
            aim: what the median of the ratios should be at most.
        """
        _tell_turns(what, self._processor, each, aim)

    def tell_wall(self, what: str, each: int, aim: float | None = None) -> None:
        """The same of the wall time."""
        _tell_turns(what, self._wall, each, aim)


def _tell_turns(what: str, turns: tuple[list[float], list[float]], each: int, aim: float | None) -> None:
    """The median of the ratios, their quarters, and the ratio of the fastest turns."""
    # In the first turns all is new to either side.
    plain, pinned = ([seconds / each * 1e6 for seconds in one[4:]] for one in turns)
    low, middle, high = statistics.quantiles((b / a for a, b in zip(plain, pinned, strict=True)), n=4)
    tell(
        what,
        plain_us=f"{statistics.median(plain):.0f}",
        pinned_us=f"{statistics.median(pinned):.0f}",
        ratio=f"{middle:.3f} ({low:.3f} to {high:.3f})",
        fastest=f"{min(pinned) / min(plain):.3f}",
        **({} if aim is None else {"aim": against(aim, middle)}),
    )
