"""Where tables are printed: as wide as the terminal, and as wide as they are for another program."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console

from dynpin.cli.printing import printable

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["table_console"]


class _Plain(Console):
    """A console that makes strings, such as cells of tables, printable: the name of a host may be anybody's text."""

    def render_str(self, text: str, **options: Any) -> Text:  # noqa: ANN401 - as Rich has them
        return super().render_str("\n".join(map(printable, text.split("\n"))), **options)


def table_console() -> Console:
    """The console for a table on stdout. A pipe has no width: what was folded there would be found by no grep."""
    # Not Rich's is_terminal, which the environment can turn on for a pipe (FORCE_COLOR, TTY_COMPATIBLE).
    width = None if sys.stdout.isatty() else 10_000
    return _Plain(markup=False, highlight=False, emoji=False, width=width)
