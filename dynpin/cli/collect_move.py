"""`dynpin collect move`: copy one storage into another."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from dynpin.cli.errors import fail, lacking
from dynpin.cli.options import JsonOption
from dynpin.cli.printing import print_json, say
from dynpin.cli.progress import progress_bar

__all__ = ["move"]


def move(
    source: Annotated[str, typer.Argument(metavar="FROM", help="The storage to copy. It is not changed.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="An empty storage.")],
    as_json: JsonOption = False,
) -> None:
    """Copy all reports, decisions, tokens and settings: an SQLite file into PostgreSQL, or back.

    Stop the collectors of both first: collectors of FROM store nothing during the copy. If the copy was stopped or
    killed, run the same command again, and it continues.

    Example: dynpin collect move reports.sqlite postgresql://collector@db/reports
    """
    try:
        from dynpin.middleware.collector.storage import address_of, open_storage  # noqa: PLC0415
        from dynpin.middleware.collector.storage.sql import move as copy_all  # noqa: PLC0415
    except ModuleNotFoundError as error:
        lacking("the collector", error.name, "collector")
    addresses = [address_of(source), address_of(target)]
    if isinstance(addresses[0], Path) and not addresses[0].exists():
        fail(f"there is no file {source}: name the storage to copy")
    with (
        closing(open_storage(addresses[0])) as copied,
        closing(open_storage(addresses[1])) as copy,
        progress_bar() as show,
    ):
        counts = copy_all(copied, copy, show)
    if as_json:
        print_json(counts)
        return
    for table, rows in counts.items():
        if rows:
            say(f"{rows:>12,}  {table}")
    say(f"{copy.name} has everything that {copied.name} has")
