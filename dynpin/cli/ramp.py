"""`dynpin ramp`: show and change the position of a site between report-only and its target max-age."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from dynpin.cli.errors import fail, finding
from dynpin.cli.options import DEFAULT_INVENTORY, InventoryOption, JsonOption, NowOption, moment
from dynpin.cli.printing import print_json, say
from dynpin.cli.site import fetched
from dynpin.durations import duration
from dynpin.middleware.policy import Inventory, read_inventory
from dynpin.middleware.policy.ramp import (
    KeptRamp,
    Position,
    Ramp,
    ask,
    intake_refusal,
    reported,
    shown,
    unheard,
)
from dynpin.report import rfc3339

__all__ = ["app"]

app = typer.Typer(help="Show how far max-age has grown, hold it, or move it by hand.", no_args_is_help=True)


@app.command(name="status")
def status_command(inventory: InventoryOption = None, now: NowOption = None, as_json: JsonOption = False) -> None:
    """Show the current max-age, how long it has been quiet, what comes next, and what holds the ramp.

    The exit code is 1 if reports, a silent collector or a person hold the ramp.

    Example: dynpin ramp status
    """
    site, ramp, kept = _ramp(inventory)
    at = moment(now)
    began = kept.read()
    position = _as_of_now(ramp, began or ramp.begin(at), at)
    hindrance = _hindrance(ramp, position)
    above = ramp.above(position.max_age)
    left = 0 if above is None else max(0, ramp.stay(position.max_age) - position.waited)
    if as_json:
        answer = {
            "begun": began is not None,
            "max_age": position.max_age,
            "target": ramp.target,
            "waited": round(position.waited),
            "stay": None if above is None else ramp.stay(position.max_age),
            "next": above,
            "next_at": None if above is None else rfc3339(at + left),
            "held_by": hindrance or None,
        }
        print_json(answer)
    else:
        say(f"{site.label}: {shown(position.max_age)}")
        for level in ramp.levels:
            say(f"  {_line(ramp, position, level)}")
        if began is None:
            say("\nThe ramp has not begun: the server begins it, within a minute of its start.")
        elif above is not None and not hindrance:
            say(f"\n{shown(above)} follows at {rfc3339(at + left)} or later, if it stays quiet.")
    if hindrance:
        finding(f"the ramp stays where it is: {hindrance}")


@app.command(name="next")
def next_command(
    inventory: InventoryOption = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Move up even if there are reports, the collector is silent, or the quiet time is too short.",
        ),
    ] = False,
    now: NowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Move up one step now. The exit code is 1 if reports came in, the collector did not answer, or it is too early.

    Example: dynpin ramp next
    """
    _, ramp, kept = _ramp(inventory)
    at = moment(now)
    position = _as_of_now(ramp, kept.read() or ramp.begin(at), at)
    above = ramp.above(position.max_age)
    if above is None:
        finding(f"the ramp is at its end, {shown(ramp.target)}")
    if not force:
        hindrance = _hindrance(ramp, position) or intake_refusal(ramp)
        stay = ramp.stay(position.max_age)
        if not hindrance and position.waited < stay:
            hindrance = f"it has been quiet for {duration(position.waited)} of {duration(stay)}"
        if hindrance:
            finding(f"the ramp stays where it is: {hindrance}; --force moves it anyway")

    def up(current: Position, _: float) -> Position:
        return replace(current, max_age=ramp.above(current.max_age) or above, waited=0.0)

    _show(kept.change(ramp.begin(at), up, at), as_json=as_json)


@app.command(name="back")
def back_command(inventory: InventoryOption = None, now: NowOption = None, as_json: JsonOption = False) -> None:
    """Move down one step: clients that visit from now on forget sooner. It moves up again after a quiet time.

    Example: dynpin ramp back
    """
    _, ramp, kept = _ramp(inventory)

    def down(current: Position, _: float) -> Position:
        return replace(current, max_age=ramp.below(current.max_age), waited=0.0)

    at = moment(now)
    _show(kept.change(ramp.begin(at), down, at), as_json=as_json)


@app.command(name="hold")
def hold_command(inventory: InventoryOption = None, now: NowOption = None, as_json: JsonOption = False) -> None:
    """Stay at this step until dynpin ramp resume.

    Example: dynpin ramp hold
    """
    _, ramp, kept = _ramp(inventory)
    at = moment(now)
    _show(kept.change(ramp.begin(at), lambda current, _: replace(current, is_held=True), at), as_json=as_json)


@app.command(name="resume")
def resume_command(inventory: InventoryOption = None, now: NowOption = None, as_json: JsonOption = False) -> None:
    """Continue after dynpin ramp hold.

    Example: dynpin ramp resume
    """
    _, ramp, kept = _ramp(inventory)
    at = moment(now)
    _show(kept.change(ramp.begin(at), lambda current, _: replace(current, is_held=False), at), as_json=as_json)


@app.command(name="restart")
def restart_command(inventory: InventoryOption = None, now: NowOption = None, as_json: JsonOption = False) -> None:
    """Start the ramp again at its first step.

    Example: dynpin ramp restart
    """
    _, ramp, kept = _ramp(inventory)
    at = moment(now)
    _show(kept.restart(ramp.begin(at), at), as_json=as_json)


def _ramp(inventory: Path | None) -> tuple[Inventory, Ramp, KeptRamp]:
    """The site, its ramp, and the stored position. A shared state is read again from the collector."""
    path = inventory or DEFAULT_INVENTORY
    if inventory is None and not path.is_file():
        fail(f"there is no {path} in this folder: name the site's with --inventory")
    site = read_inventory(path)
    kept = site.kept_ramp(fetched(site))
    if site.ramp is None or kept is None:
        fail(f"{path} has no ramp: add a line [ramp]; the documentation lists its default steps")
    if not site.ramp.is_on:
        fail(f"{path} has mode = {site.mode!r}: a ramp needs mode = 'enforce'")
    return site, site.ramp, kept


def _as_of_now(ramp: Ramp, position: Position, now: float) -> Position:
    """The position with a new answer of the collector, not with that of the server's last request."""
    answer = ask(ramp, min(position.began_at, now))
    failure = unheard(position, answer)
    return replace(position, open_groups=position.open_groups if failure else answer.open_groups, failure=failure)


def _hindrance(ramp: Ramp, position: Position) -> str:
    if position.failure:
        return position.failure
    if position.open_groups:
        return reported(position, ramp)
    return "dynpin ramp hold; dynpin ramp resume lets it go" if position.is_held else ""


def _line(ramp: Ramp, position: Position, level: int | None) -> str:
    """The line of one step: passed, current or next."""
    height = -1 if level is None else level
    reached = -1 if position.max_age is None else position.max_age
    mark = "✓" if height < reached else "▶" if height == reached else " "
    stay = "" if level == ramp.target else f"  {duration(ramp.stay(level))} of quiet"
    if mark == "▶" and stay:
        stay += f": {duration(position.waited)} until now"
    return f"{mark} {shown(level):<22}{stay}".rstrip()


def _show(moved: tuple[Position, Position], *, as_json: bool) -> None:
    """Print how the ramp has moved."""
    before, after = moved
    if as_json:
        print_json({"before": before.max_age, "max_age": after.max_age, "held": after.is_held})
    elif after.max_age != before.max_age:
        say(f"{shown(before.max_age)} -> {shown(after.max_age)}; a running server follows within seconds")
    elif after.is_held != before.is_held:
        say(f"{shown(after.max_age)}, {'held' if after.is_held else 'moving up after a time of quiet'}")
    else:
        say(f"{shown(after.max_age)}, as before")
