"""Fuzz every parser: ``python -m tests.fuzz --seconds 60 [TARGET ...]``.

With atheris (``pip install --group fuzz``) where it is installed, else with hypothesis. The exit code is 1 if input was
found that breaks a target: hypothesis prints it, atheris writes it to a file here, ``fuzz-TARGET-crash-…``.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import traceback

from tests.fuzz.engines import has_atheris, run_atheris, run_hypothesis

NAMES = ["header", "host", "report", "collected", "pin_file", "pin_list", "signed_list", "study"]


def main() -> int:
    """Run the targets one after the other, each in a process of its own where atheris needs one."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(NAMES)}; all without one")
    parser.add_argument(
        "--seconds", type=int, default=int(os.environ.get("FUZZ_SECONDS", "60")), help="for each target"
    )
    parser.add_argument("--engine", choices=["atheris", "hypothesis"], help="atheris where it is installed")
    parser.add_argument("--corpus", help=argparse.SUPPRESS)
    arguments = parser.parse_intermixed_args()
    unknown = set(arguments.targets) - set(NAMES)
    if unknown:
        parser.error(f"no target {', '.join(sorted(unknown))}: there are {', '.join(NAMES)}")
    engine = arguments.engine or ("atheris" if has_atheris() else "hypothesis")
    if arguments.corpus:
        run_atheris(arguments.targets[0], arguments.seconds, arguments.corpus)
    fuzz = _with_atheris if engine == "atheris" else _with_hypothesis
    broken = [name for name in arguments.targets or NAMES if not fuzz(name, arguments.seconds)]
    print(f"broken: {', '.join(broken)}" if broken else "nothing found")
    return 1 if broken else 0


def _with_atheris(name: str, seconds: int) -> bool:
    print(f"{name}: {seconds} s of atheris", flush=True)
    with tempfile.TemporaryDirectory(prefix="dynpin-fuzz-") as corpus:
        command = [sys.executable, "-m", "tests.fuzz", name, f"--corpus={corpus}", f"--seconds={seconds}"]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    tried = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    if done.returncode or tried is None:
        print(done.stdout, done.stderr, file=sys.stderr)
        return False
    print(f"{name}: {tried[1]} inputs")
    return True


def _with_hypothesis(name: str, seconds: int) -> bool:
    from tests.fuzz.targets import TARGETS  # not before atheris could instrument what it imports

    print(f"{name}: {seconds} s of hypothesis", flush=True)
    check, seeds = TARGETS[name]
    try:
        tried = run_hypothesis(check, seeds(), seconds)
    except Exception:  # noqa: BLE001 - whatever a target raises is a finding
        traceback.print_exc()
        return False
    print(f"{name}: {tried} inputs")
    return True


if __name__ == "__main__":
    sys.exit(main())
