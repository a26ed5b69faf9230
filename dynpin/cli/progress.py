"""A progress bar on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager

from dynpin.cli.errors import fail
from dynpin.cli.printing import printable

__all__ = ["Advance", "Show", "counting_bar", "progress_bar"]

# The current step, how much of it is done, and the total if it is known.
Show = Callable[[str, int, int | None], None]
# Called when one more is done, or with the number of those that are done.
Advance = Callable[..., None]


@contextmanager
def progress_bar(*, is_wanted: bool = True) -> Generator[Show, None, None]:
    """A bar on stderr if that is a terminal; otherwise nothing."""
    if not (is_wanted and sys.stderr.isatty()):
        yield lambda what, done, total: None
        return
    from rich.progress import (  # noqa: PLC0415 - only a terminal needs it
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from dynpin.cli.consoles import text_console  # noqa: PLC0415 - only a terminal needs it

    # The text may contain the name of a file, which must not be read as markup.
    description = TextColumn("{task.description}", markup=False)
    columns = (description, BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    # Otherwise Rich would redirect stdout to the console of the bar, which is stderr.
    with Progress(*columns, console=text_console(stderr=True), transient=True, redirect_stdout=False) as bar:
        task = bar.add_task("", total=None)
        yield lambda what, done, total: bar.update(task, description=printable(what), completed=done, total=total)


@contextmanager
def counting_bar(total: int, what: str) -> Generator[Advance, None, None]:
    """A bar that counts to a known number; `what` names the counted things, in the plural.

    The command ends if a process that does the work was ended.
    """
    done = 0
    with progress_bar() as show:

        def advance(more: int = 1) -> None:
            nonlocal done
            done += more
            show(f"{done:,} of {total:,} {what}", done, total)

        advance(0)
        try:
            yield advance
        except BrokenExecutor:
            fail("the system ended a process of this command, usually for lack of memory: give --processes 1")
