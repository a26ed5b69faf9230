"""A page or a picture: its place is checked before the work, and it is saved after the results are printed."""

from __future__ import annotations

import os
from pathlib import Path

from dynpin.cli.errors import fail

__all__ = ["check_place", "save"]


def check_place(file: Path) -> None:
    """End the command where this file could not be written; nothing is made there yet."""
    if not file.parent.is_dir():
        fail(f"{file.parent}: no such folder; make it first, or name one that is there")
    if file.is_dir():
        fail(f"{file}: a folder; name a file in it")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        fail(f"{file}: you may not write it; name a file in a folder of your own")


def save(file: Path, content: str | bytes) -> None:
    """Write the file, text as UTF-8; where that fails, the command ends and names it.

    Arguments of the command line may hold bytes that are no text: each becomes a question mark.
    """
    try:
        file.write_bytes(content.encode(errors="replace") if isinstance(content, str) else content)
    except OSError as error:
        fail(f"{file}: {error.strerror or error}; it is not whole: run the command again with another file")
