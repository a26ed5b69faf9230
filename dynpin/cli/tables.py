"""Print tables: in the width of the terminal, or in full width for another program."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console

from dynpin.cli.printing import printable

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["table_console"]


class _Plain(Console):
    """A console that makes strings printable, since cells, such as host names, may be a stranger's text."""

    def render_str(self, text: str, **options: Any) -> Text:  # noqa: ANN401 - as Rich has them
        return super().render_str("\n".join(map(printable, text.split("\n"))), **options)


def table_console() -> Console:
    """The console for a table on stdout. For a pipe it does not fold lines, so that grep finds every text."""
    # Not Rich's is_terminal, which the environment can switch on for a pipe (FORCE_COLOR, TTY_COMPATIBLE).
    width = None if sys.stdout.isatty() else 10_000
    return _Plain(markup=False, highlight=False, emoji=False, width=width)
