"""How long a person waits for the command to start.

Every figure stands beside that of ``python -c pass`` in the same run, so that a busy machine slows both alike:
``make bench ARGS=tests/benchmarks/bench_cli.py``.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

import trustme

from dynpin import Pin
from dynpin.clientstore import PinStore

from .turns import against

ROUNDS = 15
# The aims: as many times what Python itself takes to start: 0.15 s and 0.4 s where that is 0.02 s.
AT_MOST = {"--version": 7.5, "hosts list, 10 hosts": 20.0}


def test_start_beside_that_of_python(tmp_path: Path) -> None:
    certificate = tmp_path / "site.pem"
    certificate.write_bytes(trustme.CA().cert_pem.bytes())
    commands = {
        "python -c pass": ["-c", "pass"],
        "--version": ["-m", "dynpin", "--version"],
        "--help": ["-m", "dynpin", "--help"],
        "pin FILE": ["-m", "dynpin", "pin", str(certificate)],
        "lint HEADER": ["-m", "dynpin", "lint", "max-age=3", "--json", "--fail-on", "critical"],
    }
    for size in (10, 1_000):
        path = tmp_path / f"pins-{size}"
        with PinStore(path) as store:
            for number in range(size):
                store.pin(f"host-{number}.test", [Pin(number.to_bytes(32))])
        commands[f"hosts list, {size:,} hosts"] = ["-m", "dynpin", "hosts", "list", "--store", str(path)]
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(ROUNDS):
        for name, arguments in commands.items():
            begun = time.perf_counter()
            subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
            seconds[name].append(time.perf_counter() - begun)
    bare = statistics.median(seconds["python -c pass"])
    print(f"\nfrom start to end, {ROUNDS} rounds")
    for name, each in seconds.items():
        median = statistics.median(each)
        aim = f"   aim {against(AT_MOST[name], median / bare)}" if name in AT_MOST else ""
        print(
            f"  {name:<24} median {median * 1e3:>5.0f} ms   best {min(each) * 1e3:>5.0f} ms   x{median / bare:.1f}{aim}"
        )
