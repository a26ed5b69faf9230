"""`dynpin collect status`: the state of the collector, from its storage."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import typer

from dynpin.cli.collect_verbs import ConfigFile, StorageOption, open_storage, settings_of
from dynpin.cli.options import JsonOption
from dynpin.cli.printing import print_json, say
from dynpin.counts import counted
from dynpin.errors import StoreError
from dynpin.report import rfc3339

if TYPE_CHECKING:
    from dynpin.middleware.collector import Storage

__all__ = ["status"]

_PATIENCE_S = 5.0


def status(
    context: typer.Context, storage: StorageOption = None, config: ConfigFile = None, as_json: JsonOption = False
) -> None:
    """Say whether reports can be stored, what waits for a verdict, which alert channels fail, and if the clock jumped.

    Example: dynpin collect status --storage reports.sqlite
    """
    from dynpin.middleware.collector.storage import HOUR, Filter  # noqa: PLC0415
    from dynpin.middleware.collector.worker import clock_jump  # noqa: PLC0415

    with open_storage(settings_of(context, storage, config).settings.storage, must_exist=True) as kept:
        fault = _fault(kept)
        accepted = kept.accepted(int(time.time() // HOUR))
        waiting = sum(groups for verdict, groups, _ in kept.tally(Filter(), "verdict", 100) if not verdict)
        failing = {note.name: rfc3339(note.failing_since) for note in kept.channels() if note.failing_since is not None}
        jump = clock_jump(kept)
    if as_json:
        print_json(
            {
                "fault": fault,
                "accepted_this_hour": accepted,
                "groups_not_judged": waiting,
                "failing_channels": failing,
                "clock_jump": None if jump is None else {"before": rfc3339(jump.before), "after": rfc3339(jump.after)},
            }
        )
    else:
        say(f"storage   {fault or 'reports can be stored'}")
        of = f", of {counted(len(accepted), 'token')}" if accepted else ""
        say(f"accepted  {counted(sum(accepted.values()), 'report')} in this hour{of}")
        say(f"waiting   {counted(waiting, 'group')} for a verdict")
        for name, since in failing.items():
            say(f"alerts    {name} has taken no message since {since}; the log of the worker says why")
        if jump is not None:
            say(f"clock     {jump}")
    if fault or failing or jump:
        raise typer.Exit(1)


def _fault(kept: Storage) -> str | None:
    try:
        kept.probe(_PATIENCE_S)
    except StoreError as error:
        return str(error)
    return None
