"""Find the file of a store."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from dynpin.errors import StoreError

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
    """The file of a store, its links resolved; None for a store in memory.

    Raises:
        StoreError: for a text that cannot name a file.
        TypeError: for a partition that is not a text.
    """
    if path is not None and os.fspath(path) == IN_MEMORY:
        return None
    file = default_path() if path is None else Path(os.fsdecode(path))
    if partition is not None:
        if not isinstance(partition, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"partition must be a text, such as the host in the address bar, not {partition!r}")
        # A partition may be any text, so the file is named by its hash. The text itself is deliberately not stored.
        digest = hashlib.sha256(partition.encode(errors="surrogatepass")).hexdigest()[:32]
        file = file.with_name(f"{file.stem}.{digest}{file.suffix}")
    try:
        return Path(os.path.realpath(file))
    except ValueError as error:  # a zero byte, or half of a surrogate pair
        raise StoreError(f"the pin store {str(file)!r} cannot be the name of a file: {error}") from None
