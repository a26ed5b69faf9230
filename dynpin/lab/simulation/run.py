"""Run a study: clients in chunks, chunks in parallel processes. The numbers do not depend on the processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dynpin.lab.simulation import intervals
from dynpin.lab.simulation.engine import play
from dynpin.lab.simulation.healing import play_with_lists
from dynpin.lab.simulation.site_policy import SitePolicy
from dynpin.lab.simulation.study import Study
from dynpin.lab.simulation.study_table import DAY
from dynpin.lab.simulation.tally import Tally, Writer
from dynpin.lab.simulation.world import World, build
from dynpin.lab.workers import shared

__all__ = ["Outcome", "chunks", "simulate"]

# A chunk has about this many visits: 8 bytes each, and a few times that while they are drawn. The chunks depend only on
# the study, never on the number of processes, since each chunk has its own random numbers.
_VISITS_A_CHUNK = 1 << 19
_MOST_CLIENTS_A_CHUNK = 1 << 15
# With fewer chunks than this, a process would take longer to start than to work.
_CHUNKS_WORTH_A_PROCESS = 24
# One sample an hour, unless these are too many to keep and to draw.
_STEP, _MOST_SAMPLES = 3_600, 20_000


@dataclass(frozen=True)
class Outcome:
    """The effect of a policy on its users.

    Attributes:
        policy: the policy.
        world: the policy with its calendar.
        tally: the sums.
        step: the seconds between samples; the first sample is at 0.
        with_recovery: the same if sites have signed lists; None if the study has none.
    """

    policy: SitePolicy
    world: World
    tally: Tally
    step: int
    with_recovery: Outcome | None = None

    @property
    def days(self) -> NDArray[np.float64]:
        """The day of each sample."""
        return np.arange(self.tally.locked_out.size, dtype=np.float64) * (self.step / DAY)

    @property
    def locked_out(self) -> NDArray[np.float64]:
        """At each sample, the share of clients that are locked out."""
        return self.tally.locked_out / self.tally.clients

    @property
    def fooled(self) -> NDArray[np.float64]:
        """At each sample, the share of clients that an attacker has."""
        return self.tally.fooled / self.tally.clients

    @property
    def locked_out_days(self) -> float:
        """Client-days locked out."""
        return self.tally.locked_out_seconds / DAY

    @property
    def fooled_days(self) -> float:
        """Client-days in an attacker's hands."""
        return self.tally.fooled_seconds / DAY

    @property
    def waited_days(self) -> float:
        """Client-days from a visit that the site refused to the end of that lock-out."""
        return self.tally.waited_seconds / DAY

    @property
    def turned_away(self) -> float:
        """The share of clients whose visit to the site was refused at least once."""
        return self.tally.turned_away / self.tally.clients

    @property
    def interval_turned_away(self) -> tuple[float, float]:
        """Its 95 % interval."""
        return intervals.of_share(self.tally.turned_away, self.tally.clients)

    def half_width(self, of: Literal["locked_out", "fooled", "waited"]) -> float:
        """Half the width of the 95 % interval of these client-days."""
        total, squares = getattr(self.tally, f"{of}_seconds"), getattr(self.tally, f"{of}_squares")
        return intervals.of_sum(total / DAY, squares / DAY**2, self.tally.clients)

    def interval_at_most(self, of: Literal["locked_out", "fooled"]) -> tuple[float, float]:
        """The 95 % interval of the largest share at one time."""
        most: int = getattr(self.tally, of).max()
        return intervals.of_share(int(most), self.tally.clients)


def simulate(
    study: Study, *, processes: int | None = None, progress: Callable[[int], None] | None = None
) -> tuple[Outcome, ...]:
    """Play a study under each of its policies.

    Args:
        study: the study.
        processes: the most at a time; None for as many as this process may use. The numbers are the same.
        progress: called now and then with the number of further clients that are done.

    Returns:
        an outcome for each policy, in their order.

    Raises:
        concurrent.futures.BrokenExecutor: if the system killed a worker process, usually for lack of memory.
    """
    step = _step(study)
    worlds = _worlds(study)
    totals = [Tally.empty(study.horizon // step + 1) for _ in worlds]
    with closing(_played(study, _processes(processes, len(chunks(study))))) as played:
        for tallies in played:
            for total, tally in zip(totals, tallies, strict=True):
                total.add(tally)
            if progress is not None:
                progress(tallies[0].clients)
    count = len(study.policies)
    outcomes = [
        Outcome(policy, world, total, step)
        for policy, world, total in zip(study.policies * (len(worlds) // max(count, 1)), worlds, totals, strict=True)
    ]
    if study.recovery is None:
        return tuple(outcomes)
    return tuple(
        replace(outcome, with_recovery=other) for outcome, other in zip(outcomes[:count], outcomes[count:], strict=True)
    )


def chunks(study: Study) -> list[int]:
    """The number of clients in each chunk."""
    visits = max(study.population.per_day * study.days, 1e-9)
    size = int(min(max(_VISITS_A_CHUNK // (visits + 1), 1), _MOST_CLIENTS_A_CHUNK))
    whole, rest = divmod(study.clients, size)
    return [size] * whole + ([rest] if rest else [])


def _processes(asked: int | None, parts: int) -> int:
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if asked is not None:
        return max(1, min(asked, parts))
    return max(1, min(cpus, parts // _CHUNKS_WORTH_A_PROCESS))


def _step(study: Study) -> int:
    return max(_STEP, -(-study.horizon // _MOST_SAMPLES // _STEP) * _STEP)


def _worlds(study: Study) -> tuple[World, ...]:
    """The world of each policy, and a second one with signed lists if the study has them."""
    lists = (None,) if study.recovery is None else (None, study.recovery.signed_after)
    return tuple(
        build(policy, study.events, study.horizon, study.client_cap, signed_after=signed_after)
        for signed_after in lists
        for policy in study.policies
    )


def _played(study: Study, processes: int) -> Generator[list[Tally], None, None]:
    parts = list(enumerate(chunks(study)))
    if processes == 1:
        _keep_freed_memory()
        worlds = _worlds(study)
        for number, clients in parts:
            yield _play_chunk(study, worlds, number, clients)
        return
    # A task has several chunks, so that it is worth sending, but there are enough tasks to keep all processes busy.
    size = max(1, min(8, len(parts) // (8 * processes)))
    tasks = [parts[first : first + size] for first in range(0, len(parts), size)]
    yield from shared(_play_chunks, tasks, processes, partial(_prepare, study))


_prepared: list[tuple[Study, tuple[World, ...]]] = []


def _prepare(study: Study) -> None:
    _keep_freed_memory()
    _prepared[:] = [(study, _worlds(study))]


def _keep_freed_memory() -> None:
    # glibc returns freed arrays to the kernel, which zeroes them again for the next chunk: half of all the time. After
    # it has seen a freed block of this size, up to 32 MiB, it keeps such blocks. On other systems this does nothing.
    np.empty(31 << 20, np.uint8)


def _play_chunks(task: list[tuple[int, int]]) -> list[Tally]:
    ((study, worlds),) = _prepared
    totals = [Tally.empty(study.horizon // _step(study) + 1) for _ in worlds]
    for number, clients in task:
        for total, tally in zip(totals, _play_chunk(study, worlds, number, clients), strict=True):
            total.add(tally)
    return totals


def _play_chunk(study: Study, worlds: tuple[World, ...], number: int, clients: int) -> list[Tally]:
    # The fastest of numpy's generators: drawing is most of the work.
    rng = np.random.Generator(np.random.SFC64(np.random.SeedSequence(study.seed, spawn_key=(number,))))
    visits = study.population.draw(rng, clients, study.horizon)
    shares = np.array([attack.share for attack in worlds[0].attacks])
    targets = rng.random((shares.size, clients)) < shares[:, np.newaxis]
    step = _step(study)
    tallies: list[Tally] = []
    for world in worlds[: len(study.policies)]:
        writer = Writer(clients, study.horizon // step + 1, step)
        play(world, visits, targets, writer, least_step=study.least_step)
        tallies.append(writer.finished(visits.keys.size))
    if study.recovery is None:
        return tallies
    # Drawn last, so that the numbers are the same without signed lists.
    listed = rng.random(clients) < study.recovery.share
    phases = rng.integers(DAY, size=clients)
    for world in worlds[len(study.policies) :]:
        writer = Writer(clients, study.horizon // step + 1, step)
        play_with_lists(
            world,
            visits,
            targets,
            writer,
            recovery=study.recovery,
            listed=listed,
            phases=phases,
            least_step=study.least_step,
        )
        tallies.append(writer.finished(visits.keys.size))
    return tallies
