"""A file system of its own that a test can fill. Only root can mount one: elsewhere such a test is skipped."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["fill", "mounted"]


@contextmanager
def mounted(folder: Path, megabytes: int) -> Iterator[Path]:
    """Mount an empty file system of so many megabytes, in memory, on a folder that is made for it."""
    if os.geteuid():
        pytest.skip("only root may mount a small file system")
    folder.mkdir()
    # On a tmpfs everybody may make files, also the user of a server.
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        folder.rmdir()
        pytest.skip("nothing can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
        folder.rmdir()


def fill(folder: Path, leave: int = 0) -> Path:
    """Leave `leave` bytes of room on the file system of a folder, and none by default; the file that takes the rest."""
    ballast = folder / "ballast"
    status = os.statvfs(folder)
    with ballast.open("wb", buffering=0) as file:
        left = status.f_bavail * status.f_frsize - leave
        try:
            while left > 0:
                left -= file.write(b"x" * min(left, 4096))
        except OSError:
            pass  # another program was faster
    assert leave or os.statvfs(folder).f_bavail == 0
    return ballast
