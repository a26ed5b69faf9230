"""Real clients: visits are read from a file, and played again."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from dynpin.errors import InvalidStudy
from dynpin.lab.simulation.study_table import DAY
from dynpin.lab.simulation.visits import Floats, Integers, Visits, ranges
from dynpin.middleware.policy import read_file

__all__ = ["Traces", "read_traces"]

# A page is many requests, but one visit. This also limits the memory for a client.
_ONE_VISIT = 60
# In bytes.
_LONGEST_FILE = 1 << 28
_SHORTEST, _LONGEST = 3_600, 3_660 * DAY


@dataclass(frozen=True)
class Traces:
    """Clients that repeat recorded visits: each follows a random trace from a random point of it.

    Attributes:
        name: their name.
        share: their share of the population, in any unit.
        length: the length of the recording, in seconds; traces repeat after that.
        traces: each recorded client's visits, in ascending seconds below `length`.
    """

    name: str
    share: float
    length: int
    traces: tuple[tuple[int, ...], ...]

    @cached_property
    def _seen(self) -> Visits:
        return Visits.of(self.traces, self.length)

    @property
    def per_day(self) -> float:
        """How often a client visits a day, on average."""
        return self._seen.keys.size / len(self.traces) / self.length * DAY

    def draw(self, rng: np.random.Generator, clients: int, horizon: int) -> tuple[Integers, Floats]:
        """The number of visits of each client, and their seconds, client by client, in order."""
        chosen = rng.integers(len(self.traces), size=clients)
        begun = rng.integers(self.length, size=clients)
        starts = self._seen.starts[chosen]
        in_a_round = self._seen.starts[chosen + 1] - starts

        def before(second: Integers) -> Integers:
            """How many visits of its trace each client has made before a second, with all repetitions."""
            rounds, rest = np.divmod(second, self.length)
            behind: Integers = rounds * in_a_round + self._seen.index(chosen, rest) - starts
            return behind

        first, end = before(begun), before(begun + horizon)
        counts = end - first
        rounds, number = np.divmod(ranges(first, end), np.repeat(in_a_round, counts))
        seconds = self._seen.second(np.repeat(chosen, counts), np.repeat(starts, counts) + number)
        return counts, (rounds * self.length + seconds - np.repeat(begun, counts)).astype(np.float64)


def read_traces(path: Path, length: int | None = None) -> tuple[int, tuple[tuple[int, ...], ...]]:
    """Recorded visits: a CSV file with the columns ``client`` and ``second``.

    Args:
        path: the file. The seconds may count from any time, such as 1970. A client's requests within a minute are one
            visit.
        length: the length of the recording, in seconds; None for the time until the last visit.

    Returns:
        the length, and each client's visits.

    Raises:
        InvalidStudy: for a file without such a table; the message names the line.
        OSError: if it cannot be read.
    """
    seen = _rows(path)
    if not seen:
        raise InvalidStudy(f"{path} has no visit: below the line client,second it needs one line for each visit")
    begun = min(map(min, seen.values()))
    last = max(map(max, seen.values())) - begun
    if last >= _LONGEST:
        raise InvalidStudy(f"{path} has visits {last / DAY:,.0f} days apart: is the column second in seconds?")
    whole = last + 1 if length is None else length
    if whole < _SHORTEST:
        what = "its visits span" if length is None else "its length is"
        raise InvalidStudy(f'{path}: {what} {whole:g} s: give for how long it was taken, such as length = "30 days"')
    if last >= whole:
        raise InvalidStudy(
            f"{path} has visits over {last / DAY:.1f} days, more than its length of {whole / DAY:g}: "
            "leave length away, or give all of it"
        )
    return whole, tuple(_visits(sorted(second - begun for second in seconds)) for seconds in seen.values())


def _rows(path: Path) -> dict[str, list[int]]:
    seen: dict[str, list[int]] = {}
    try:
        text = read_file(path, _LONGEST_FILE).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidStudy(f"{path} is not UTF-8: save it as such") from None
    with io.StringIO(text, newline="") as file:
        rows = csv.DictReader(file)
        try:
            if not {"client", "second"} <= set(rows.fieldnames or ()):
                raise InvalidStudy(f"{path} needs the columns client and second, named in its first line")
            for row in rows:
                try:
                    second = int(float(row["second"]))
                except (TypeError, ValueError, OverflowError):
                    found = row["second"] or ""
                    raise InvalidStudy(f"{path}:{rows.line_num}: {found!r} is not a number of seconds") from None
                seen.setdefault(row["client"], []).append(second)
        except csv.Error as error:
            raise InvalidStudy(f"{path}:{rows.line_num + 1}: this is not CSV: {error}") from None
    return seen


def _visits(seconds: list[int]) -> tuple[int, ...]:
    visits = seconds[:1]
    for second in seconds:
        if second - visits[-1] >= _ONE_VISIT:
            visits.append(second)
    return tuple(visits)
