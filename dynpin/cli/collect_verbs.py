"""Shared by the verbs of `dynpin collect`: their settings, before or after the verb, and the storage."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dynpin.cli.collect_settings import Sourced, described, read_settings
from dynpin.cli.errors import fail
from dynpin.cli.printing import say

if TYPE_CHECKING:
    from dynpin.middleware.collector import Storage

__all__ = ["ConfigFile", "StorageOption", "open_storage", "settings_of"]

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", help="The file with the settings. The default is ./collector.toml.", show_default=False),
]
StorageOption = Annotated[str | None, typer.Option("--storage", help=described("storage"), show_default=False)]


def settings_of(context: typer.Context, storage: str | None = None, config: Path | None = None) -> Sourced:
    """The settings of a verb, from flags before and after it."""
    flags, file = context.find_root().obj if context.obj is None else context.obj
    after = {} if storage is None else {"storage": storage}
    return read_settings({**flags, **after}, config or file, os.environ)


def _is_missing(address: str | Path) -> bool:
    try:
        return isinstance(address, Path) and not address.exists()
    except OSError:
        return False  # whatever opens it says why it cannot be reached


@contextmanager
def open_storage(address: str | Path, *, must_exist: bool = False) -> Generator[Storage]:
    """Open the storage for a verb, and close it afterwards."""
    from dynpin.middleware.collector import open_storage  # noqa: PLC0415

    is_new = _is_missing(address)
    if must_exist and is_new:
        fail(f"there is no file {address}; name the collector's with --storage")
    kept = open_storage(address)
    if is_new:  # say so: in the wrong folder, no collector would read it
        say(f"dynpin: made a new storage: {Path(address).absolute()}. The collector must use this file.", err=True)
    try:
        yield kept
    finally:
        kept.close()
