"""The pin store of a command: its option, and how it is opened."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from dynpin.cli.errors import fail
from dynpin.cli.printing import say
from dynpin.clientstore import PinStore

__all__ = ["StoreOption", "existing_store", "open_store"]

StoreOption = Annotated[
    Path | None, typer.Option("--store", help="The file of the pin store. The default is the one in your data folder.")
]


def open_store(store: Path | None) -> PinStore:
    """Open the named store, or the user's own.

    If there was no such store, stderr says so, since a store with a mistyped name would pin nothing.
    """
    named = store or os.environ.get("DYNPIN_STORE")
    is_new = not Path(named).exists() if named else False
    pins = PinStore(store)
    if is_new:
        say(f"dynpin: a new pin store: {pins.path}", err=True)
    return pins


def existing_store(store: Path | None) -> PinStore:
    """Open the named store, or the user's own. A named one is not made, since the name may be mistyped."""
    if store is not None and not store.exists():
        fail(f"there is no pin store at {store}: check the path, or leave --store out for your own store")
    return PinStore(store)
