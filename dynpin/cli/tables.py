"""Where tables are printed: as wide as the terminal, and as wide as they are for another program."""

from __future__ import annotations

from rich.console import Console

__all__ = ["table_console"]


def table_console() -> Console:
    """The console for a table on stdout. A pipe has no width: what was folded there would be found by no grep."""
    console = Console(markup=False, highlight=False)
    return console if console.is_terminal else Console(markup=False, highlight=False, width=10_000)
