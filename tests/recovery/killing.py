"""A command in a process of its own, which is killed before one of its changes to the disk, or has a full disk."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.deploy.commands import dynpin

__all__ = ["KILLED", "run"]

KILLED = -signal.SIGKILL
# Forked from a process without threads that has already imported everything.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([__name__, "tests.recovery.warm"])


def run(
    arguments: Sequence[str], folder: Path, *, before: int | None = None, umask: int = 0o022, full: bool = False
) -> tuple[int, str]:
    """Run a command in this folder. Returns its exit code and its output.

    Args:
        arguments: the command.
        folder: its working directory, in which changes are counted.
        before: kill the process before this change, counted from 0; None to let it end.
        umask: the umask of the process.
        full: whether the disk is full.
    """
    said = folder.parent / "said"
    child = _CONTEXT.Process(target=_child, args=(arguments, folder, said, before, umask, full))
    child.start()
    child.join()
    assert child.exitcode is not None
    return child.exitcode, said.read_text() if said.exists() and child.exitcode >= 0 else ""


def _child(arguments: Sequence[str], folder: Path, said: Path, before: int | None, umask: int, full: bool) -> None:
    os.chdir(folder)
    os.umask(umask)
    said.unlink(missing_ok=True)
    if before is not None:
        _kill_before(before, str(folder))
    with said.open("w") as file:
        if full:
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        result = dynpin(*arguments)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        file.write(result.output)
    os._exit(result.exit_code)


def _kill_before(number: int, folder: str) -> None:
    left = number

    def hook(event: str, details: tuple[object, ...]) -> None:
        nonlocal left
        changes = event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir") or (
            event == "open" and isinstance(details[2], int) and bool(details[2] & os.O_CREAT)
        )
        if not changes or not isinstance(details[0], (str, os.PathLike)):
            return
        path = os.path.abspath(os.fspath(details[0]))  # noqa: PTH100 - of whatever is given
        if not path.startswith(folder):
            return
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    sys.addaudithook(hook)
