"""A progress bar on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager

__all__ = ["Show", "progress_bar"]

# The current step, how much of it is done, and the total if it is known.
Show = Callable[[str, int, int | None], None]


@contextmanager
def progress_bar(*, is_wanted: bool = True) -> Generator[Show, None, None]:
    """A bar on stderr if that is a terminal; otherwise nothing."""
    if not (is_wanted and sys.stderr.isatty()):
        yield lambda what, done, total: None
        return
    from rich.console import Console  # noqa: PLC0415 - only a terminal needs it
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    # Otherwise Rich would redirect stdout to the console of the bar, which is stderr.
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False) as bar:
        task = bar.add_task("", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)
