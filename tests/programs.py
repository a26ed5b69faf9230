"""Programs that tests start."""

from __future__ import annotations

import subprocess
from typing import AnyStr

__all__ = ["end"]

# Seconds that a program has to end by itself.
_PATIENCE = 30


def end(process: subprocess.Popen[AnyStr]) -> None:
    """Ask it to end, wait for that, and end it by force if it does not."""
    process.terminate()
    try:
        process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
