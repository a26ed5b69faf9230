"""The clients, and the times of their visits: every visit is drawn at random, in whole seconds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast, get_args

import numpy as np

from dynpin.errors import InvalidStudy
from dynpin.lab.simulation.study_table import DAY, Table
from dynpin.lab.simulation.traces import Traces, read_traces
from dynpin.lab.simulation.visits import Floats, Integers, Visits, ranges

__all__ = ["PRESETS", "Group", "Population", "Rhythm", "read_population"]

Rhythm = Literal["random", "regular"]

# How far a regular client's visits vary from its period, as a share of the period.
_JITTER = 0.2
# One visit a minute: more visits do not change a store, and would fill the memory.
_MOST_PER_DAY = 1_440


@dataclass(frozen=True)
class Group:
    """Clients of one kind.

    Attributes:
        name: their name.
        share: their share of the population, in any unit.
        per_day: how often one of them visits a day, on average.
        rhythm: ``"random"`` is a Poisson process: each visit is independent of the last. ``"regular"`` is a program
            that visits at its period, with a little jitter.
        spread: how much their rates differ: the standard deviation of the rate's logarithm; 0 for none. The mean
            stays `per_day`, except that nobody visits more than once a minute.
    """

    name: str
    share: float
    per_day: float
    rhythm: Rhythm = "random"
    spread: float = 0.0

    def draw(self, rng: np.random.Generator, clients: int, horizon: int) -> tuple[Integers, Floats]:
        """The number of visits of each client, and their seconds, client by client, in order."""
        rates = np.full(clients, self.per_day / DAY)
        if self.spread:
            rates *= np.exp(self.spread * rng.standard_normal(clients) - self.spread**2 / 2)
            np.minimum(rates, _MOST_PER_DAY / DAY, out=rates)
        return _poisson(rng, rates, horizon) if self.rhythm == "random" else _regular(rng, rates, horizon)


@dataclass(frozen=True)
class Population:
    """Kinds of clients. The kind of each client is drawn by their shares."""

    groups: tuple[Group | Traces, ...]
    name: str = "own"
    _shares: tuple[float, ...] = field(init=False, repr=False, default=())

    def __post_init__(self) -> None:
        total = math.fsum(group.share for group in self.groups)
        if not total > 0:
            raise InvalidStudy("a population needs a group whose share is above 0")
        object.__setattr__(self, "_shares", tuple(group.share / total for group in self.groups))

    @property
    def shares(self) -> tuple[float, ...]:
        """The share of each group; together they are 1."""
        return self._shares

    @property
    def per_day(self) -> float:
        """How often a client visits a day, on average."""
        return math.fsum(share * group.per_day for share, group in zip(self.shares, self.groups, strict=True))

    def draw(self, rng: np.random.Generator, clients: int, horizon: int) -> Visits:
        """The visits of this many clients, until the horizon in seconds."""
        parts = [
            group.draw(rng, int(count), horizon)
            for group, count in zip(self.groups, rng.multinomial(clients, self.shares), strict=True)
        ]
        counts = np.concatenate([counts for counts, _ in parts])
        at = np.concatenate([at for _, at in parts])
        # Whole seconds: from here on sums and comparisons are exact, and a clock can be set to them. All numbers are
        # below 2**53, so the addition before the conversion is exact too.
        np.floor(at, out=at)
        at += np.repeat(np.arange(clients, dtype=np.float64) * (horizon + 1), counts)
        return Visits(horizon, np.concatenate(([0], np.cumsum(counts))), at.astype(np.int64))


def _poisson(rng: np.random.Generator, rates: Floats, horizon: int) -> tuple[Integers, Floats]:
    # One Poisson process of rate 1 is cut into pieces, one for each client. The length of a piece is the client's
    # expected number of visits. The pieces are independent; stretched to the horizon, each has its client's rate.
    ends = np.cumsum(rates * horizon)
    total = float(ends[-1]) if ends.size else 0.0
    pieces = [_process(rng, total, 0.0)]
    while pieces[-1][-1] < total:
        pieces.append(_process(rng, total, float(pieces[-1][-1])))
    points = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
    cuts = np.searchsorted(points, ends)
    counts = np.diff(cuts, prepend=0)
    at = points[: cuts[-1]] if cuts.size else points[:0]
    at -= np.repeat(ends - rates * horizon, counts)
    with np.errstate(divide="ignore"):  # a client that never visits has no visit to stretch
        at *= np.repeat(1.0 / rates, counts)
    # Rounding may move the first and the last visit of a piece outside it.
    np.clip(at, 0.0, horizon - 1.0, out=at)
    return counts, at


def _process(rng: np.random.Generator, total: float, since: float) -> Floats:
    left = total - since
    gaps = rng.standard_exponential(int(left + 6 * math.sqrt(left) + 16))
    gaps[0] += since
    points: Floats = np.cumsum(gaps, out=gaps)
    return points


def _regular(rng: np.random.Generator, rates: Floats, horizon: int) -> tuple[Integers, Floats]:
    most = np.ceil(rates * horizon).astype(np.int64)
    turn = ranges(np.zeros_like(most), most)
    phase = np.repeat(rng.random(rates.size) * (1 - _JITTER), most)
    with np.errstate(divide="ignore"):
        at = (turn + phase + _JITTER * rng.random(turn.size)) * np.repeat(1.0 / rates, most)
    inside = at < horizon
    counts = np.bincount(np.repeat(np.arange(rates.size), most)[inside], minlength=rates.size)
    return counts.astype(np.int64), at[inside]


PRESETS: Mapping[str, Population] = {
    "website": Population(
        (
            Group("daily", 0.10, 1.0),
            Group("weekly", 0.25, 1 / 7),
            Group("monthly", 0.35, 1 / 30),
            Group("rarely", 0.30, 1 / 120),
        ),
        "website",
    ),
    "staff": Population(
        (Group("at work", 0.85, 4.0, spread=0.5), Group("part time", 0.10, 0.5), Group("on leave", 0.05, 1 / 45)),
        "staff",
    ),
    "devices": Population(
        (Group("on", 0.90, 4.0, "regular"), Group("often off", 0.08, 1 / 3), Group("in a drawer", 0.02, 1 / 90)),
        "devices",
    ),
    "build agents": Population(
        (Group("busy", 0.70, 12.0, spread=0.7), Group("nightly", 0.25, 1.0, "regular"), Group("idle", 0.05, 1 / 14)),
        "build agents",
    ),
}


def read_population(values: object, folder: Path) -> Population:
    """The ``population`` of a study: the name of a preset, or tables of groups and traces.

    Raises:
        InvalidStudy: for invalid values, and traces that cannot be read.
    """
    if isinstance(values, str):
        if values not in PRESETS:
            raise InvalidStudy(f"there is no population {values!r}; there are {', '.join(PRESETS)}")
        return PRESETS[values]
    if not isinstance(values, list) or not values:
        raise InvalidStudy(f"population must be one of {', '.join(PRESETS)}, or tables headed [[population]]")
    groups = cast("list[object]", values)
    return Population(tuple(_group(number, each, folder) for number, each in enumerate(groups, start=1)))


def _group(number: int, values: object, folder: Path) -> Group | Traces:
    table = Table(
        f"population {number}", values, ("name", "share", "every", "per_day", "rhythm", "spread", "traces", "length")
    )
    name, share = table.text("name", f"group {number}"), table.number("share", 1.0)
    if "traces" in table.values:
        length = table.span("length") if "length" in table.values else None
        path = folder / table.text("traces")
        try:
            return Traces(name, share, *read_traces(path, length))
        except InvalidStudy as error:
            raise InvalidStudy(f"{table.name}: {error}") from None
        except OSError as error:
            raise InvalidStudy(
                f"{table.name}: traces in {path}: {error.strerror}; paths count from the study's folder"
            ) from None
    if ("every" in table.values) == ("per_day" in table.values):
        raise InvalidStudy(f'{table.name}: give either every = "7 days" or per_day = 0.2')
    if "per_day" in table.values:
        per_day = table.number("per_day", most=_MOST_PER_DAY)
    else:
        every = table.span("every")
        if every < 60:
            raise table.wrong("every", "a minute or more")
        per_day = DAY / every
    rhythm: Rhythm = "regular" if table.choice("rhythm", get_args(Rhythm), "random") == "regular" else "random"
    return Group(name, share, per_day, rhythm, table.number("spread", 0.0, most=3))
