"""Find the file of a store."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

__all__ = ["IN_MEMORY", "default_path", "store_path"]

IN_MEMORY = ":memory:"


def default_path() -> Path:
    """Where the user's own store is: ``$DYNPIN_STORE``, else ``pins.sqlite`` in the user's data folder."""
    named = os.environ.get("DYNPIN_STORE")
    if named:
        return Path(named)
    from platformdirs import user_data_path  # noqa: PLC0415 - needed for this one path

    return user_data_path("dynpin", appauthor=False) / "pins.sqlite"


def store_path(path: str | os.PathLike[str] | None, partition: str | None) -> Path | None:
    """The file of a store, its links resolved; None for a store in memory."""
    if path is not None and os.fspath(path) == IN_MEMORY:
        return None
    file = default_path() if path is None else Path(path)
    if partition is not None:
        # A partition may be any text, so the file is named by its hash. The text itself is deliberately not stored.
        digest = hashlib.sha256(partition.encode()).hexdigest()[:32]
        file = file.with_name(f"{file.stem}.{digest}{file.suffix}")
    return Path(os.path.realpath(file))
