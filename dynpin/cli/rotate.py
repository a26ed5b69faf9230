"""`dynpin rotate`: replace a pinned key without locking anybody out."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from dynpin.cli.errors import fail, finding, in_words
from dynpin.cli.printing import say
from dynpin.cli.site import DEFAULT_INVENTORY, InventoryOption, site_of
from dynpin.deploy.guard import chain_of_file
from dynpin.deploy.rotation import (
    Deployed,
    Emergency,
    Held,
    History,
    Planned,
    Published,
    Status,
    Step,
    advance,
    emergency,
    plan,
    status,
)
from dynpin.deploy.rotation.picture import svg, terminal, timeline
from dynpin.errors import DynpinError, PolicyError
from dynpin.header import PublicKeyPins
from dynpin.hosts import canonical_host
from dynpin.pins import Pin
from dynpin.report import rfc3339

__all__ = ["CapOption", "HistoryOption", "NowOption", "app", "cap_of", "moment", "read_history"]

app = typer.Typer(help="Replace a pinned key without locking anybody out.", no_args_is_help=True)

DEFAULT_HISTORY = Path("dynpin-history.json")
HistoryOption = Annotated[Path, typer.Option("--history", help="The file that keeps what was served, and when.")]
CapOption = Annotated[
    int | None,
    typer.Option(
        "--client-cap",
        help="Days after which every client forgets, whatever max-age says (dynpin's clients: 60).",
        min=1,
    ),
]
NowOption = Annotated[
    str | None,
    typer.Option("--now", help="Answer as of this time (RFC 3339, or a day in UTC).", show_default=False),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]
SvgOption = Annotated[Path | None, typer.Option("--svg", help="Draw the timeline into this file.", show_default=False)]


@app.command(name="record")
def record(
    header: Annotated[
        str | None,
        typer.Option("--header", help="The value that every response carries from now on.", show_default=False),
    ] = None,
    no_header: Annotated[bool, typer.Option("--no-header", help="No response carries a header from now on.")] = False,
    chain: Annotated[
        Path | None, typer.Option("--chain", help="The chain that every node shows from now on.", show_default=False)
    ] = None,
    host: Annotated[str | None, typer.Option("--host", help="The host; needed once.", show_default=False)] = None,
    inventory: InventoryOption = None,
    history: HistoryOption = DEFAULT_HISTORY,
    now: NowOption = None,
) -> None:
    """Record what is served: to begin a history, and whenever something was changed without `rotate next --done`.

    With an inventory: the header that it makes, and the chain that it names.
    """
    at = moment(now)
    told = header is not None or chain is not None or no_header
    if told and inventory is not None:
        fail("give --inventory, or --header, --no-header and --chain")
    site = site_of(inventory, is_named_otherwise=told)
    if site is not None and len(site.chains) != 1:
        fail(f"{site.path} names {len(site.chains)} chains: record each in a history of its own, with --chain")
    if site is not None and host is None:
        host = site.hosts[0]
    if history.exists():
        kept = read_history(history)
    elif host is None:
        fail(f"{history} does not exist yet: begin it with --host NAME --header VALUE --chain FILE")
    else:
        try:
            kept = History(canonical_host(host))
        except DynpinError as error:
            fail(str(error))
    if site is None and not told:
        fail("record what? --header VALUE, --no-header or --chain FILE")
    try:
        if header is not None or no_header:
            kept = kept.adding(Published(at, None if header is None else PublicKeyPins.parse(header)))
        if chain is not None:
            kept = kept.adding(Deployed(at, chain_of_file(chain)))
        if site is not None:
            kept = kept.adding(Published(at, site.header)).adding(Deployed(at, site.chain))
    except (DynpinError, ValueError, OSError) as error:
        fail(in_words(error))
    _write(history, kept)
    say(f"recorded in {history}: {len(kept.events)} events of {kept.host}")


@app.command(name="status")
def status_command(
    history: HistoryOption = DEFAULT_HISTORY,
    cap: CapOption = None,
    now: NowOption = None,
    picture: SvgOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say where the rotation stands, what clients may hold, and what is next.

    Exit code 1 where clients are locked out.
    """
    kept, at = read_history(history), moment(now)
    stands = status(kept, at, max_max_age=cap_of(cap))
    steps = [stands.step] if stands.step else []
    _draw(picture, kept, at, steps, cap)
    if as_json:
        typer.echo(json.dumps(_status_as_json(kept, stands), indent=2))
    else:
        say(f"{kept.host}: {stands.stage}")
        _show_held(stands.held)
        _show_steps(steps, at)
        _show_picture(kept, at, steps, cap)
    if stands.locked_out:
        last = max(policy.until for policy in stands.locked_out)
        finding(f"clients are locked out now, the last of them until {rfc3339(last)}: dynpin rotate emergency key-lost")


@app.command(name="plan")
def plan_command(
    to: Annotated[str, typer.Option("--to", help="The new key: a pin, a certificate, CSR or public key.")],
    backup: Annotated[
        list[str] | None, typer.Option("--backup", help="A backup key for afterwards; may be repeated.")
    ] = None,
    start: Annotated[
        bool, typer.Option("--start", help="Begin this rotation: record the plan in the history.")
    ] = False,
    history: HistoryOption = DEFAULT_HISTORY,
    cap: CapOption = None,
    now: NowOption = None,
    picture: SvgOption = None,
    as_json: JsonOption = False,
) -> None:
    """Plan the rotation to a new key: what to send, when to deploy, when to drop the old pin."""
    kept, at = read_history(history), moment(now)
    target, backups = _pin(to), [_pin(each) for each in backup or []]
    if not backups and kept.header is not None:
        # What is pinned, and neither deployed nor about to be, is a backup already.
        backups = [pin for pin in kept.header.pins if pin not in kept.chain and pin != target]
    try:
        steps = plan(kept, target, backups, at, max_max_age=cap_of(cap))
        if start:
            _write(history, kept.adding(Planned(at, target, tuple(backups))))
    except ValueError as error:
        fail(str(error))
    _draw(picture, kept, at, steps, cap)
    if as_json:
        typer.echo(json.dumps([step.to_dict() for step in steps], indent=2))
        return
    say(f"{kept.host}: to {target}")
    _show_steps(steps, at)
    _show_picture(kept, at, steps, cap)
    say("Begun: dynpin rotate next says what to do." if start else "Nothing is recorded; --start begins it.")


@app.command(name="next")
def next_command(
    done: Annotated[bool, typer.Option("--done", help="Record that the next step is done, now.")] = False,
    chain: Annotated[
        Path | None, typer.Option("--chain", help="With --done, the chain that was deployed.", show_default=False)
    ] = None,
    history: HistoryOption = DEFAULT_HISTORY,
    cap: CapOption = None,
    now: NowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what is next and when, or with --done record it. Exit code 1 where it is too early, with the date."""
    kept, at = read_history(history), moment(now)
    stands = status(kept, at, max_max_age=cap_of(cap))
    if done:
        try:
            event = advance(kept, at, max_max_age=cap_of(cap))
            if isinstance(event, Deployed) and chain is not None:
                shown = chain_of_file(chain)
                if event.chain[0] not in shown:
                    fail(f"{chain} does not show {event.chain[0]}, the key of this rotation")
                event = Deployed(at, shown)
        except OSError as error:
            fail(in_words(error))
        except ValueError as error:
            finding(str(error))
        kept = kept.adding(event)
        _write(history, kept)
        stands = status(kept, at, max_max_age=cap_of(cap))
    if as_json:
        typer.echo(json.dumps(_status_as_json(kept, stands), indent=2))
    elif stands.step is None:
        say(f"{kept.host}: {stands.stage}; nothing is to be done. dynpin rotate plan --to KEY begins a rotation.")
    else:
        say(f"{kept.host}: {stands.stage}")
        _show_steps([stands.step], at)
    if stands.is_early and not done:
        finding()


@app.command(name="emergency")
def emergency_command(
    kind: Annotated[Emergency, typer.Argument(help="What happened to the deployed key, or to its CA.")],
    held_keys: Annotated[
        list[str] | None,
        typer.Option("--key", help="A key whose private half is at hand and secret: pin, CSR, public key. Repeatable."),
    ] = None,
    history: HistoryOption = DEFAULT_HISTORY,
    cap: CapOption = None,
    now: NowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Walk through an emergency: which key to deploy now, what to send, who is refused and until when."""
    kept, at = read_history(history), moment(now)
    steps = emergency(kind, kept, [_pin(each) for each in held_keys or []], at, max_max_age=cap_of(cap))
    if as_json:
        typer.echo(json.dumps([step.to_dict() for step in steps], indent=2))
        return
    say(f"{kept.host}: {kind}")
    _show_steps(steps, at)


def read_history(path: Path, inventory: Path | None = None) -> History:
    """The history in this file, or the end of the command.

    Where an inventory is named, or stands beside the file, and has a ramp, what that has sent is a part of it.
    """
    beside = path.parent / DEFAULT_INVENTORY
    if inventory is None and beside.is_file():
        inventory = beside
    try:
        kept = History.from_json(path.read_bytes())
        if inventory is None:
            return kept
        from dynpin.deploy.site import sent_on_ramp  # noqa: PLC0415 - most histories have no ramp

        return kept.on_ramp(sent_on_ramp(inventory))
    except FileNotFoundError:
        fail(
            f"{path} does not exist: begin it with dynpin rotate record --inventory FILE, or with --host NAME "
            "--header VALUE --chain FILE"
        )
    except OSError as error:
        fail(f"{path}: {error.strerror or error}")
    except PolicyError as error:
        fail(str(error))
    except ValueError as error:
        fail(f"{path}: {error}")


def moment(text: str | None) -> float:
    """The time of --now, in seconds since the epoch; without one, the clock's."""
    if text is None:
        return time.time()
    try:
        given = datetime.fromisoformat(text)
    except ValueError:
        fail(f"{text} is no time: write 2026-12-24 or 2026-12-24T18:00:00Z")
    return (given if given.tzinfo else given.replace(tzinfo=UTC)).timestamp()


def cap_of(days: int | None) -> int | None:
    """A cap in days as seconds."""
    return None if days is None else days * 24 * 60 * 60


def _write(path: Path, history: History) -> None:
    from dynpin.middleware.policy import write_atomically  # noqa: PLC0415 - it imports the middleware

    # The history decides when a key may be deployed: it is replaced whole, or not at all.
    try:
        write_atomically(path, history.to_json() + "\n")
    except OSError as error:
        fail(f"{path} cannot be written, and nothing is recorded: {error.strerror or error}")


def _pin(text: str) -> Pin:
    try:
        return Pin.from_base64(text)
    except ValueError:
        pass
    try:
        return Pin.from_file(text)
    except OSError as error:
        fail(f"{text} is neither a pin nor a file: {error.strerror or error}")
    except DynpinError as error:
        fail(str(error))


def _status_as_json(history: History, stands: Status) -> dict[str, object]:
    return {
        "host": history.host,
        "stage": str(stands.stage),
        "now": rfc3339(stands.now),
        "early": stands.is_early,
        "next": stands.step and stands.step.to_dict(),
        "held": [_held_as_json(policy) for policy in stands.held],
        "locked_out": [_held_as_json(policy) for policy in stands.locked_out],
    }


def _held_as_json(policy: Held) -> dict[str, object]:
    return {
        "header": str(policy.header),
        "first_at": rfc3339(policy.first_at),
        "last_at": None if policy.last_at is None else rfc3339(policy.last_at),
        "until": rfc3339(policy.until),
    }


def _show_held(policies: Sequence[Held]) -> None:
    for policy in policies:
        ends = "is sent" if policy.last_at is None else f"was sent until {rfc3339(policy.last_at)}"
        say(f"  clients may hold until {rfc3339(policy.until)} what {ends}:")
        for pin in policy.header.pins:
            say(f"    {pin}")


def _show_steps(steps: Sequence[Step], now: float) -> None:
    for number, step in enumerate(steps, 1):
        when = "now" if step.at <= now else f"not before {rfc3339(step.at)}"
        say(f"\n  {number}. {step.name}: {when}")
        say(f"     {step.what}")
        if step.header is not None:
            say(f"     {step.header.name}: {step.header}")
        say(f"     {step.why}")


def _show_picture(history: History, now: float, steps: Sequence[Step], cap: int | None) -> None:
    from rich.console import Console  # noqa: PLC0415 - beside what is shown

    console = Console(highlight=False)
    console.print()
    drawn = timeline(history, now, steps, max_max_age=cap_of(cap))
    console.print(terminal(drawn, min(console.width, 100)), no_wrap=True, end="")


def _draw(path: Path | None, history: History, now: float, steps: Sequence[Step], cap: int | None) -> None:
    if path is None:
        return
    try:
        path.write_text(svg(timeline(history, now, steps, max_max_age=cap_of(cap))), encoding="utf-8")
    except OSError as error:
        fail(f"{path}: {error.strerror or error}")
