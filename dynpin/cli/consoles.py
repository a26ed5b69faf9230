"""Where a person reads what Rich lays out: a console on which no text is markup, and none speaks to the terminal."""

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
    """A console that makes all text printable: the name of a host or a file may be anybody's text."""

    def render_str(self, text: str, **options: Any) -> Text:  # noqa: ANN401 - as Rich has them
        """A string, such as a cell of a table: each mark is there before the columns are measured."""
        return super().render_str(_printable(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Whatever has text in it; what moves the cursor of a progress bar is Rich's own."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(_printable(segment.text), segment.style)


def text_console(width: int | None = None, *, stderr: bool = False) -> Console:
    """The console for paragraphs, pictures and progress bars; as wide as the terminal, if no width is given."""
    return _Plain(markup=False, highlight=False, emoji=False, width=width, stderr=stderr)


def table_console() -> Console:
    """The console for a table on stdout. A pipe has no width: what was folded there would be found by no grep."""
    # Not Rich's is_terminal, which the environment can turn on for a pipe (FORCE_COLOR, TTY_COMPATIBLE).
    return text_console(None if sys.stdout.isatty() else 10_000)


def _printable(text: str) -> str:
    return "\n".join(map(printable, text.split("\n")))
