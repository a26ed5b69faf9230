"""A bar on stderr for a person who waits."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager

__all__ = ["Show", "progress_bar"]

# What is done now, how much of it is done, and how much there is, where that is known.
Show = Callable[[str, int, int | None], None]


@contextmanager
def progress_bar(*, is_wanted: bool = True) -> Generator[Show, None, None]:
    """A bar on stderr where that is a terminal, and nothing elsewhere."""
    if not (is_wanted and sys.stderr.isatty()):
        yield lambda what, done, total: None
        return
    from rich.console import Console  # noqa: PLC0415 - for a person who waits
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    # Rich would print what goes to stdout above the bar, and so on stderr.
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False) as bar:
        task = bar.add_task("", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)
