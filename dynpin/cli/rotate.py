"""`dynpin rotate`: replace a pinned key without locking anybody out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dynpin.cli.errors import fail, finding
from dynpin.cli.options import (
    DEFAULT_HISTORY,
    CaOption,
    CapOption,
    HistoryOption,
    InventoryOption,
    JsonOption,
    NowOption,
    cap_of,
    moment,
)
from dynpin.cli.printing import print_json, say
from dynpin.cli.rotate_output import (
    draw,
    end_with,
    show_held,
    show_missing,
    show_picture,
    show_steps,
    status_as_json,
)
from dynpin.cli.rotate_record import record, repair
from dynpin.cli.rotate_site import (
    as_sent,
    change,
    differences,
    inventory_beside,
    kept_at,
    key_of,
    nodes_seen,
    read_history,
    refuse_inside,
    sights,
)
from dynpin.cli.signed_list import ListOption, list_seen
from dynpin.deploy.rotation import (
    Emergency,
    History,
    Missing,
    NotSeen,
    Planned,
    emergency,
    plan,
    status,
)
from dynpin.deploy.rotation import done as with_step_done
from dynpin.pins import Pin

if TYPE_CHECKING:
    from dynpin.middleware.policy import Inventory

__all__ = ["app"]

app = typer.Typer(help="Replace a pinned key without locking anybody out.", no_args_is_help=True)
app.command(name="record")(record)

PictureOption = Annotated[Path | None, typer.Option("--picture", help="Draw it into this .svg.", show_default=False)]


@app.command(name="status")
def status_command(
    inventory: InventoryOption = None,
    history: HistoryOption = DEFAULT_HISTORY,
    cap: CapOption = None,
    now: NowOption = None,
    picture: PictureOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the state of the rotation, what clients may hold, and what is next.

    The exit code is 1 if clients are locked out, or if the history and the inventory disagree.

    Example: dynpin rotate status --picture rotation.svg
    """
    at = moment(now)
    site = inventory_beside(inventory, history)
    where = kept_at(history, site)
    if site is not None and not where.exists():
        finding(f"{where} does not exist, so nobody knows what clients hold: dynpin rotate record begins it")
    kept = read_history(history, inventory)
    stands = status(kept, at, max_max_age=cap_of(cap))
    differs = differences(kept, site, at)
    steps = [stands.step] if stands.step else []
    draw(picture, kept, at, steps, cap_of(cap))
    if as_json:
        print_json(status_as_json(kept, stands, differs))
    else:
        say(f"{kept.host}: {stands.stage}")
        show_held(stands.held)
        show_steps(steps, at)
        show_picture(kept, at, steps, cap_of(cap))
    end_with(stands.locked_out, differs)


@app.command(name="plan")
def plan_command(
    to: Annotated[
        str, typer.Option("--to", metavar="KEY", help="The new key: a pin, a certificate, CSR or public key.")
    ],
    backup: Annotated[
        list[str] | None, typer.Option("--backup", help="A backup key for afterwards. Repeatable.")
    ] = None,
    start: Annotated[
        bool, typer.Option("--start", help="Start this rotation: record the plan in the history.")
    ] = False,
    inventory: InventoryOption = None,
    history: HistoryOption = DEFAULT_HISTORY,
    cap: CapOption = None,
    now: NowOption = None,
    picture: PictureOption = None,
    as_json: JsonOption = False,
) -> None:
    """Plan the rotation to a new key: what to send, when to deploy, when to drop the old pin.

    Example: dynpin rotate plan --to backup.pub.pem --backup tls/next.pub.pem --start
    """
    kept, at = read_history(history, inventory), moment(now)
    site = inventory_beside(inventory, history)
    target, backups = key_of(to).pin, _backups(backup or [], kept, to, site)
    steps = plan(kept, target, backups, at, max_max_age=cap_of(cap))
    if start:
        differs = differences(kept, site, at)
        if differs:
            show_missing(differs)
            finding("nothing is begun: a rotation starts from a history that is true")
        kept = change(kept_at(history, site), lambda now_kept: now_kept.with_event(Planned(at, target, backups)))
    draw(picture, kept, at, steps, cap_of(cap))
    if as_json:
        print_json([step.to_dict() for step in steps])
        return
    say(f"{kept.host}: to {target}")
    show_steps(steps, at)
    show_picture(kept, at, steps, cap_of(cap))
    say("Begun: dynpin rotate next says what to do." if start else "Nothing is recorded; --start begins it.")


@app.command(name="next")
def next_command(
    url: Annotated[
        str | None,
        typer.Argument(help="With --verify: the URL of the site. The default is https://HOST/.", show_default=False),
    ] = None,
    done: Annotated[
        bool, typer.Option("--done", help="Record that the next step is done, if the inventory and --verify show it.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="With --done: ask every address and node of the site.")
    ] = False,
    signed_list: ListOption = None,
    ca: CaOption = None,
    inventory: InventoryOption = None,
    history: HistoryOption = DEFAULT_HISTORY,
    cap: CapOption = None,
    now: NowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what is next and when, or with --done record it.

    A step is recorded only if the inventory has what the step needs, and with --verify if every node has it. For the
    step sign the published list must name the pins. The exit code is 1 if it is too early (with the date), or if
    something is missing.

    Example: dynpin rotate next --done --verify https://www.example.com/
    """
    kept = read_history(history, inventory)
    site = inventory_beside(inventory, history)
    missing: tuple[Missing, ...] = ()
    refusal = None
    if (verify or url is not None or signed_list is not None) and not done:
        fail("--verify, --list and the URL need --done")
    if done:
        if site is None and not verify:
            fail("there is nothing to look at: name --inventory, or look at the site itself with --verify")
        seen = nodes_seen(site, url, kept.host, ca) if verify else []
        listed = list_seen(kept, signed_list, site, moment(now), ca=ca)
        at = moment(now)  # after the look: until then a node may have sent the old header
        seen = seen if site is None else [*sights(site, kept.host, at), *seen]
        try:
            kept = change(
                kept_at(history, site),
                lambda before: with_step_done(as_sent(before, site), seen, at, listed=listed, max_max_age=cap_of(cap)),
            )
        except NotSeen as error:
            refusal, missing = f"the step {error.step.name} is not done, and nothing is recorded", error.missing
        except ValueError as error:
            refusal, missing = str(error), differences(kept, site, at)
    else:
        at = moment(now)
        missing = differences(kept, site, at)
    stands = status(kept, at, max_max_age=cap_of(cap))
    if as_json:
        answer = status_as_json(kept, stands, () if done else missing)
        print_json(
            answer | {"done": refusal is None, "missing": [each.to_dict() for each in missing]} if done else answer
        )
    elif refusal is None and stands.step is None:
        say(f"{kept.host}: {stands.stage}; there is nothing to do. dynpin rotate plan --to KEY begins a rotation.")
    elif refusal is None and stands.step is not None:
        say(f"{kept.host}: {stands.stage}")
        show_steps([stands.step], at)
    show_missing(missing)
    if refusal is not None or missing or (stands.is_early and not done):
        finding(refusal)


app.command(name="repair")(repair)


@app.command(name="emergency")
def emergency_command(
    kind: Annotated[Emergency, typer.Argument(help="What happened to the deployed key, or to its CA.")],
    held_keys: Annotated[
        list[str] | None,
        typer.Option("--key", help="A key whose private half only you have: pin, CSR, public key. Repeatable."),
    ] = None,
    history: HistoryOption = DEFAULT_HISTORY,
    cap: CapOption = None,
    now: NowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what to do in an emergency: which key to deploy now, what to send, and who is refused until when.

    Example: dynpin rotate emergency key-compromised --key backup.pub.pem
    """
    kept, at = read_history(history, in_emergency=True), moment(now)
    keys = [key_of(each) for each in held_keys or []]
    for key in keys if kind != "ca-distrusted" else ():
        if key.pin in kept.chain[:1]:
            fail(
                f"{key.label} is the key in use, as the history has it, and {kind} says that it is gone. If you have "
                "it, and nobody else has, deploy it again with its certificate: clients accept it. Else name another "
                "key in --key"
            )
    steps = emergency(kind, kept, [key.pin for key in keys], at, max_max_age=cap_of(cap))
    if as_json:
        print_json([step.to_dict() for step in steps])
        return
    say(f"{kept.host}: {kind}")
    show_steps(steps, at)


def _backups(texts: Sequence[str], history: History, to: str, site: Inventory | None) -> tuple[Pin, ...]:
    """The Backup Pins after a rotation: the given ones, or all pinned keys that are neither deployed nor planned."""
    from dynpin.middleware.policy import Chain, Key, in_chain, read_chain  # noqa: PLC0415 - here and in no completion

    key = key_of(to)
    target = key.pin
    present = [Chain("the recorded chain", history.chain, None)] if history.chain else []
    roots: tuple[Path, ...] = ()
    if site is not None:
        present, roots = [*present, *site.read_chains()], site.roots
    future = [Chain(to, (target,), None) if to == str(target) else read_chain(Path(to), to)]
    inside = None if target in {chain.pins[0] for chain in present} else in_chain(key, present, roots)
    if inside is not None:
        fail(f"{to} is not a key to deploy: {inside}. Name the certificate, CSR or public key of the server's new key")
    if texts:
        keys = [key_of(each) for each in texts]
        refuse_inside(keys, future, roots)
        # The deployed key may be a backup afterwards; another key of its chain may not.
        refuse_inside([key for key in keys if key.pin not in history.chain[:1]], present, roots)
    else:
        names = () if history.header is None else history.header.pins
        left = [Key(str(pin), pin) for pin in names if pin not in history.chain and pin != target]
        keys = [key for key in left if in_chain(key, [*future, *present], roots) is None]
    return tuple(key.pin for key in keys)
