"""A bar on stderr for a person who waits."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager

from dynpin.cli.printing import printable

__all__ = ["Advance", "Show", "counting_bar", "progress_bar"]

# What is done now, how much of it is done, and how much there is, where that is known.
Show = Callable[[str, int, int | None], None]
# Called when one more is done, or with how many more are.
Advance = Callable[..., None]


@contextmanager
def progress_bar(*, is_wanted: bool = True) -> Generator[Show, None, None]:
    """A bar on stderr where that is a terminal, and nothing elsewhere."""
    if not (is_wanted and sys.stderr.isatty()):
        yield lambda what, done, total: None
        return
    from rich.progress import (  # noqa: PLC0415 - for a person who waits
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from dynpin.cli.consoles import text_console  # noqa: PLC0415 - likewise

    # What is done may have the name of a file in it, which is no markup.
    description = TextColumn("{task.description}", markup=False)
    columns = (description, BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    # Rich would print what goes to stdout above the bar, and so on stderr.
    with Progress(*columns, console=text_console(stderr=True), transient=True, redirect_stdout=False) as bar:
        task = bar.add_task("", total=None)
        yield lambda what, done, total: bar.update(task, description=printable(what), completed=done, total=total)


@contextmanager
def counting_bar(total: int, what: str) -> Generator[Advance, None, None]:
    """A bar that counts to a number that is known; `what` is counted, in the plural."""
    done = 0
    with progress_bar() as show:

        def advance(more: int = 1) -> None:
            nonlocal done
            done += more
            show(f"{done:,} of {total:,} {what}", done, total)

        advance(0)
        yield advance
