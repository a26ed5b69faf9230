"""The output of `dynpin rotate`: a status, steps, pictures, and what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dynpin.cli.errors import fail, finding, reason_of
from dynpin.cli.printing import say
from dynpin.deploy.rotation import Held, History, Missing, Status, Step
from dynpin.deploy.rotation.gantt import svg, terminal, timeline
from dynpin.report import rfc3339

__all__ = ["draw", "end_with", "show_held", "show_missing", "show_picture", "show_steps", "status_as_json"]


def status_as_json(history: History, stands: Status, disagreements: Sequence[Missing] = ()) -> dict[str, object]:
    """The state of a host, with the differences between history and inventory."""
    return {
        "host": history.host,
        "stage": str(stands.stage),
        "now": rfc3339(stands.now),
        "early": stands.is_early,
        "next": stands.step and stands.step.to_dict(),
        "held": [_held_as_json(policy) for policy in stands.held],
        "locked_out": [_held_as_json(policy) for policy in stands.locked_out],
        "disagreements": [each.to_dict() for each in disagreements],
    }


def _held_as_json(policy: Held) -> dict[str, object]:
    return {
        "header": str(policy.header),
        "first_at": rfc3339(policy.first_at),
        "last_at": None if policy.last_at is None else rfc3339(policy.last_at),
        "until": rfc3339(policy.until),
        "assumed": policy.is_assumed,
    }


def show_held(policies: Sequence[Held]) -> None:
    """Print the policies that clients may hold, and until when."""
    for policy in policies:
        until = rfc3339(policy.until)
        if policy.is_assumed:
            say(f"  until {until} clients may hold an unknown header; dynpin assumes that it has this key:")
        else:
            sent = "that is sent now" if policy.last_at is None else f"that was sent until {rfc3339(policy.last_at)}"
            say(f"  until {until} clients may hold the header {sent}:")
        for pin in policy.header.pins:
            say(f"    {pin}")


def show_steps(steps: Sequence[Step], now: float) -> None:
    """Print the steps: what to do, when, and why."""
    for number, step in enumerate(steps, 1):
        when = "now" if step.at <= now else f"not before {rfc3339(step.at)}"
        say(f"\n  {number}. {step.name}: {when}")
        say(f"     {step.what}")
        if step.header is not None:
            say(f"     {step.header.name}: {step.header}")
        say(f"     {step.why}")


def show_missing(missing: Sequence[Missing]) -> None:
    """Print on stderr what does not agree, one line each."""
    for each in missing:
        say(f"dynpin: {each}", err=True)


def show_picture(history: History, now: float, steps: Sequence[Step], max_max_age: int | None) -> None:
    """Draw the timeline in the terminal."""
    from dynpin.cli.consoles import text_console  # noqa: PLC0415 - beside what is shown

    console = text_console()
    console.print()
    drawn = timeline(history, now, steps, max_max_age=max_max_age)
    console.print(terminal(drawn, min(console.width, 100)), no_wrap=True, end="")


def draw(path: Path | None, history: History, now: float, steps: Sequence[Step], max_max_age: int | None) -> None:
    """Draw the timeline into a file, if one is named."""
    if path is None:
        return
    try:
        path.write_text(svg(timeline(history, now, steps, max_max_age=max_max_age)), encoding="utf-8")
    except OSError as error:
        fail(reason_of(error, path))


def end_with(locked_out: Sequence[Held], disagreements: Sequence[Missing]) -> None:
    """End the command with a finding if clients are locked out, or if history and inventory disagree."""
    show_missing(disagreements)
    if locked_out:
        last = max(policy.until for policy in locked_out)
        finding(f"clients are locked out now, the last of them until {rfc3339(last)}: dynpin rotate emergency key-lost")
    if disagreements:
        finding()
