"""The published list for `dynpin rotate` and `dynpin guard`; `dynpin check` reads it by itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dynpin.cli.errors import fail, lacking
from dynpin.deploy.reach import LIST_URI, tls_context
from dynpin.deploy.rotation import History, ListSight, status

if TYPE_CHECKING:
    from dynpin.deploy.recovery import PublishedList
    from dynpin.middleware.policy import Inventory
    from dynpin.recovery import Recovery

__all__ = ["ListOption", "list_seen", "read_list"]

ListOption = Annotated[
    str | None,
    typer.Option(
        "--list",
        metavar="PLACE",
        help="Where to read the signed list of pins: a published folder, or uri for the recovery-uri.",
        show_default=False,
    ),
]


def read_list(
    recovery: Recovery, place: str, site: Inventory | None, now: float, *, ca: Path | None = None
) -> PublishedList:
    """The list at a place, read as by a client that has noted the root; wrong usage ends the command."""
    folder = None if place == LIST_URI else Path(place)
    if folder is not None and not folder.is_dir():
        fail(f"there is no folder {place}: name the folder that `dynpin recovery publish` wrote, or {LIST_URI}")
    try:
        from dynpin.deploy.recovery import read_published  # noqa: PLC0415 - python-tuf, for those who have a list
    except ModuleNotFoundError as error:
        lacking("--list", error.name, "recovery")
    return read_published(recovery, now, folder=folder, context=tls_context(ca, site))


def list_seen(
    history: History, place: str | None, site: Inventory | None, now: float, *, ca: Path | None = None
) -> ListSight | None:
    """The list's entry of the host, if the next step of the rotation needs it; by default from its URI."""
    step, header = status(history, now).step, history.header
    if step is None or step.name != "sign" or header is None or header.recovery is None:
        return None
    seen = read_list(header.recovery, place or LIST_URI, site, now, ca=ca)
    if seen.pins is None:
        return ListSight(seen.place, failure=f"no client believes the list: {seen.problem}")
    told = seen.pins.hosts.get(history.host)
    return ListSight(seen.place, () if told is None else told.pins)
