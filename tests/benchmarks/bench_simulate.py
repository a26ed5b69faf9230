"""Time and memory of the simulator, from 10,000 clients to ten million over two years, every visit drawn.

``make bench ARGS=tests/benchmarks/bench_simulate.py``. Each size runs in a process of its own, with the workers that it
starts, so that its memory is its own: the sum of the greatest resident sizes of all of them. The time of the
processors is told beside that of the clock, since other work on the machine makes the clock run on.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CLIENTS = (10_000, 100_000, 1_000_000, 10_000_000)
DAYS = 730

_ONE = """
import json, os, resource, sys, time
from dynpin.lab.simulation import PRESETS, SitePolicy, Study, simulate
from dynpin.lab.simulation.calendar import Attack, Loss
from dynpin.lab.simulation.study_table import DAY

def main():
    clients, days = int(sys.argv[1]), int(sys.argv[2])
    events = (Attack(200 * DAY, 230 * DAY, 0.2), Loss(500 * DAY))
    study = Study(PRESETS["website"], (SitePolicy("60 days", 60 * DAY, 1),), events, clients, days)
    begun = time.perf_counter()
    (outcome,) = simulate(study)
    wall = time.perf_counter() - begun
    spent = os.times()
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    workers = len(os.sched_getaffinity(0)) if largest else 0
    print(json.dumps({
        "visits": outcome.tally.visits,
        "wall": wall,
        "processors": spent.user + spent.system + spent.children_user + spent.children_system,
        "own": own / 1024,
        "worker": largest / 1024,
        "memory": (own + workers * largest) / 1024,
    }))

if __name__ == "__main__":
    main()
"""


def test_time_and_memory_over_clients(tmp_path: Path) -> None:
    script = tmp_path / "one.py"
    script.write_text(_ONE)
    print(f"\n{DAYS} days, website population, one policy, an attack and a loss; {os.cpu_count()} processors")
    print(
        f"{'clients':>12} {'visits':>15} {'clock s':>9} {'processors s':>13} {'us/client':>10} "
        f"{'MB':>6} = own + workers"
    )
    costs: dict[int, float] = {}
    memory: dict[int, float] = {}
    for clients in CLIENTS:
        done = subprocess.run(
            [sys.executable, script, str(clients), str(DAYS)], capture_output=True, text=True, check=True
        )
        told = json.loads(done.stdout)
        costs[clients], memory[clients] = told["processors"] / clients * 1e6, told["memory"]
        print(
            f"{clients:>12,} {told['visits']:>15,} {told['wall']:>9.2f} {told['processors']:>13.2f} "
            f"{costs[clients]:>10.2f} {told['memory']:>6.0f} = {told['own']:.0f} + workers of {told['worker']:.0f}"
        )
    # Linear: ten times the clients take no more than ten times as long, but for the noise of a busy machine.
    assert costs[10_000_000] == pytest.approx(costs[1_000_000], rel=0.5)
    assert memory[10_000_000] < 1.2 * memory[1_000_000] < 1000
