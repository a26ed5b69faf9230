"""Two ways to make random input: atheris, which is guided by coverage, and hypothesis, which is always there."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st


@st.composite
def mutated(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """One of the seeds with a few stretches cut out, put in, repeated or taken from another seed."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 80)))
        other = draw(st.sampled_from(seeds))
        at = draw(st.integers(0, len(other)))
        stretch = draw(
            st.one_of(
                st.binary(max_size=20),
                st.just(other[at : at + 80]),
                st.integers(0, 300).map(lambda times, piece=data[start:end]: piece * times),  # type: ignore[misc]
                st.text(max_size=5).map(str.encode),
            )
        )
        data = data[:start] + stretch + data[end:]
    return data


def run_hypothesis(
    check: Callable[[bytes], None],
    seeds: Sequence[bytes],
    seconds: float,
    examples: int = 500,
    *,
    repeatable: bool = False,
) -> int:
    """Try batches of examples until the time is up; the number that was tried. What `check` raises is raised.

    Where it is to be `repeatable`, each batch has the same examples.
    """
    tried = 0

    def count(data: bytes) -> None:
        nonlocal tried
        tried += 1
        check(data)

    inputs = st.one_of(mutated(list(seeds)), st.binary(max_size=200), st.text(max_size=100).map(_encode))
    batch = settings(
        max_examples=examples,
        derandomize=repeatable,
        deadline=None,
        database=None,
        print_blob=False,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    )(given(inputs)(count))
    deadline = time.monotonic() + seconds
    while True:
        batch()
        if time.monotonic() >= deadline:
            return tried


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def has_atheris() -> bool:
    """Whether atheris is installed (the dependency group ``fuzz``)."""
    return importlib.util.find_spec("atheris") is not None


def run_atheris(target: str, seconds: int, folder: str) -> NoReturn:
    """Fuzz one target with coverage of dynpin, growing a corpus in an empty folder.

    Ends the process, not with 0 where something was found.
    """
    atheris = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["dynpin"]):
        targets = importlib.import_module("tests.fuzz.targets")
    chosen = targets.TARGETS[target]
    for number, seed in enumerate(chosen.seeds()):
        (Path(folder) / f"seed-{number}").write_bytes(seed)
    # libFuzzer's own options. What breaks a target is printed, and written to a file in the working directory.
    options = [
        f"-max_total_time={seconds}",
        "-max_len=16384",
        f"-artifact_prefix=fuzz-{target}-",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], folder, *options], chosen.check)
    atheris.Fuzz()
    raise SystemExit(0)
