"""What an import and an export of a million hosts cost: the whole command, from start to end.

Beside each stands, of the same run, a program that does the least: it reads CSV and puts the rows into a table, or
reads that table and writes CSV. A busy machine slows both alike: ``make bench ARGS=tests/benchmarks/bench_import.py``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from dynpin import KnownPinnedHost
from dynpin.clientstore.store.formats import write_csv, write_jsonl, write_wget2

from .crowd import host, pins_of
from .turns import against, tell

HOSTS = 1_000_000
WRITERS: dict[str, Callable[[Iterable[KnownPinnedHost]], Iterator[str]]] = {
    "wget2": write_wget2,
    "jsonl": write_jsonl,
    "csv": write_csv,
}
# Whole processes. The most memory that a process has had is asked of the kernel at its end: ru_maxrss would count that
# of the process which started it.
_PEAK = """
import re
peak = int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1])
"""
COMMAND = f"""
import json, sys
from dynpin.cli import main
try:
    main()
finally:
    {_PEAK.strip().replace(chr(10), "; ")}
    print(json.dumps(peak), file=sys.stderr)
"""
PLAIN_IMPORT = f"""
import csv, json, sqlite3, sys
table = sqlite3.connect(sys.argv[1])
table.execute("PRAGMA journal_mode=WAL")
table.execute("PRAGMA synchronous=FULL")
table.execute("CREATE TABLE hosts (host TEXT PRIMARY KEY, a, b, c, d, e, f, g, h, i) WITHOUT ROWID")
with open(sys.argv[2]) as file, table:
    table.executemany("INSERT INTO hosts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", csv.reader(file))
table.close()
{_PEAK}
print(json.dumps(peak), file=sys.stderr)
"""
PLAIN_EXPORT = f"""
import csv, json, sqlite3, sys
table = sqlite3.connect(sys.argv[1])
with open(sys.argv[2], "w") as file:
    csv.writer(file).writerows(table.execute("SELECT * FROM hosts"))
{_PEAK}
print(json.dumps(peak), file=sys.stderr)
"""


class Cost(NamedTuple):
    seconds: float
    megabytes: float


def run(code: str, *arguments: str) -> Cost:
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    return Cost(time.perf_counter() - begun, json.loads(done.stderr.splitlines()[-1]) / 1e3)


def tell_cost(what: str, cost: Cost, plain: Cost, aim: float | None = None) -> None:
    """Print both, and whether the seconds and 200 MB were kept to."""
    seconds = {} if aim is None else {"aim_s": against(aim, cost.seconds)}
    tell(
        what,
        s=f"{cost.seconds:.1f}",
        plain_s=f"{plain.seconds:.1f}",
        ratio=f"{cost.seconds / plain.seconds:.2f}",
        **seconds,
        MB=f"{cost.megabytes:.0f}",
        plain_MB=f"{plain.megabytes:.0f}",
        aim_MB=against(200, cost.megabytes),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same million hosts, noted just now, in each format."""
    folder = tmp_path_factory.mktemp("import")
    now = float(int(time.time()))
    for form, write in WRITERS.items():
        entries = (KnownPinnedHost(host(n), pins_of(n), False, None, now, now + 2_592_000.0) for n in range(HOSTS))
        with (folder / f"pins.{form}").open("w") as file:
            file.writelines(write(entries))
    return folder


@pytest.mark.parametrize("form", WRITERS)
def test_an_import_and_an_export_beside_plain_ones(folder: Path, form: str) -> None:
    file, store, plain = folder / f"pins.{form}", folder / f"store-{form}", folder / f"plain-{form}"
    least = run(PLAIN_IMPORT, str(plain), str(folder / "pins.csv"))
    cost = run(COMMAND, "hosts", "import", str(file), "--store", str(store))
    tell_cost(f"import of {HOSTS:,}, {form}", cost, least, aim=30)

    least = run(PLAIN_EXPORT, str(plain), str(folder / "written.csv"))
    cost = run(COMMAND, "hosts", "export", "--format", form, "--out", str(file), "--store", str(store))
    tell_cost(f"export of {HOSTS:,}, {form}", cost, least)
    with file.open() as lines:
        assert sum(line.count(".example") for line in lines) == HOSTS
    for path in folder.glob(f"*-{form}*"):
        path.unlink()
