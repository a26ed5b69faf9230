"""What processes that share one store have in common: how each is started, told what to do, heard and ended."""

from __future__ import annotations

import contextlib
import select
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TypeVar

from dynpin import Pin, StoreError

__all__ = ["BACKUP", "LEAF", "ROOT", "ended", "header", "hear", "in_memory", "patiently", "start", "tell"]

ROOT = Path(__file__).parents[2]
LEAF, BACKUP = Pin(bytes([1]) * 32), Pin(bytes([2]) * 32)
# Nobody needs that long, on whatever machine; so who has not answered by then never will.
STUCK_AFTER = 120.0

_Value = TypeVar("_Value")


@contextlib.contextmanager
def in_memory() -> Generator[Path]:
    """A folder that waits for no disk, where the system has one."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


def header(backup: Pin) -> str:
    return f'pin-sha256="{LEAF}"; pin-sha256="{backup}"; max-age=1000000; includeSubDomains'


def start(module: str, *arguments: str) -> subprocess.Popen[str]:
    """A module as a process of its own; what it says on stderr is shown if a test fails."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def tell(child: subprocess.Popen[str], line: object) -> None:
    assert child.stdin is not None
    print(line, file=child.stdin, flush=True)


def hear(child: subprocess.Popen[str]) -> str:
    """One line, for which the child waits until it is told more."""
    assert child.stdout is not None
    assert select.select([child.stdout], [], [], STUCK_AFTER)[0], "it is stuck"
    line = child.stdout.readline()
    assert line, "it has failed"
    return line.rstrip("\n")


@contextlib.contextmanager
def ended(child: subprocess.Popen[str]) -> Generator[subprocess.Popen[str]]:
    """Have the child gone at the end, whatever happens."""
    with child:
        try:
            yield child
        except BaseException:
            child.kill()
            assert child.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                child.stdin.close()  # with what the child did not take
            raise


def patiently(act: Callable[[], _Value], attempts: int = 20) -> _Value:
    """Do what the store says where others write without a pause, which no client does: try again."""
    while True:
        try:
            return act()
        except StoreError as error:
            attempts -= 1
            if "try again" not in str(error).lower() or not attempts:
                raise
