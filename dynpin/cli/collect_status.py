"""`dynpin collect status`: the state of the collector, from its storage."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import typer

from dynpin.cli.collect_verbs import ConfigFile, StorageOption, open_storage, settings_of
from dynpin.cli.options import JsonOption
from dynpin.cli.printing import print_json, say
from dynpin.errors import StoreError
from dynpin.report import rfc3339

if TYPE_CHECKING:
    from dynpin.middleware.collector import Storage

__all__ = ["status"]

_PATIENCE_S = 5.0


def status(
    context: typer.Context, storage: StorageOption = None, config: ConfigFile = None, as_json: JsonOption = False
) -> None:
    """Say whether reports can be stored, how many wait for a verdict, and which alert channels fail.

    Example: dynpin collect status --storage reports.sqlite
    """
    from dynpin.middleware.collector.storage import HOUR, Filter  # noqa: PLC0415

    with open_storage(settings_of(context, storage, config).settings.storage, must_exist=True) as kept:
        fault = _fault(kept)
        accepted = kept.accepted(int(time.time() // HOUR))
        waiting = sum(groups for verdict, groups, _ in kept.tally(Filter(), "verdict", 100) if not verdict)
        failing = {note.name: rfc3339(note.failing_since) for note in kept.channels() if note.failing_since is not None}
    if as_json:
        print_json(
            {"fault": fault, "accepted_this_hour": accepted, "groups_not_judged": waiting, "failing_channels": failing}
        )
    else:
        say(f"storage   {fault or 'reports can be stored'}")
        say(f"accepted  {sum(accepted.values()):,} reports in this hour, of {len(accepted)} tokens")
        say(f"waiting   {waiting:,} groups for their verdict")
        for name, since in failing.items():
            say(f"alerts    {name} has taken no message since {since}; the log of the worker says why")
    if fault or failing:
        raise typer.Exit(1)


def _fault(kept: Storage) -> str | None:
    try:
        kept.probe(_PATIENCE_S)
    except StoreError as error:
        return str(error)
    return None
