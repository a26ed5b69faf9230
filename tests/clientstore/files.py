"""Shared by the tests of a store's file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from dynpin import Pin

LEAF, OTHER = (Pin(bytes([number]) * 32) for number in (1, 5))


def beside(file: Path, suffix: str) -> Path:
    return file.with_name(file.name + suffix)


IN_ANOTHER_PROCESS = """
import sys
from dynpin import Pin
from dynpin.clientstore import PinStore
with PinStore(sys.argv[1]) as store:
    store.pin(sys.argv[2], [Pin(bytes([1]) * 32)])
"""


def pin_elsewhere(file: Path, host: str) -> None:
    """Pin a host in another process, which closes the store as if it were the last one that has it open."""
    subprocess.run([sys.executable, "-c", IN_ANOTHER_PROCESS, str(file), host], check=True, timeout=240)
