"""Consoles for Rich, on which no text is read as markup or as a control sequence of the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.segment import Segment

from dynpin.cli.printing import printable

if TYPE_CHECKING:
    from rich.console import ConsoleOptions, RenderableType
    from rich.text import Text

__all__ = ["table_console", "text_console"]


class _Plain(Console):
    """A console that makes all text printable, since the name of a host or a file may be a stranger's text."""

    def render_str(self, text: str, **options: Any) -> Text:  # noqa: ANN401 - as Rich has them
        """A string, such as a cell of a table. It is made printable before the columns are measured."""
        return super().render_str(_printable(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Make text segments printable. Control segments, which move the cursor of a progress bar, come from Rich."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(_printable(segment.text), segment.style)


def text_console(width: int | None = None, *, stderr: bool = False) -> Console:
    """The console for paragraphs, pictures and progress bars; as wide as the terminal, if no width is given."""
    return _Plain(markup=False, highlight=False, emoji=False, width=width, stderr=stderr)


def table_console() -> Console:
    """The console for a table on stdout. For a pipe it does not fold lines, so that grep finds every text."""
    # Not Rich's is_terminal, which the environment can switch on for a pipe (FORCE_COLOR, TTY_COMPATIBLE).
    return text_console(None if sys.stdout.isatty() else 10_000)


def _printable(text: str) -> str:
    return "\n".join(map(printable, text.split("\n")))
