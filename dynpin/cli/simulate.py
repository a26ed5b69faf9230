"""`dynpin simulate`: what a pinning policy will do to its users, before they find out."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from dynpin.cli.errors import fail, lacking
from dynpin.cli.options import JsonOption
from dynpin.cli.printing import print_json
from dynpin.errors import InvalidStudy

if TYPE_CHECKING:
    from dynpin.lab.simulation import Advice, Outcome, Study
    from dynpin.lab.simulation.advice import Choice

__all__ = ["simulate"]

_WIDTH = 80

# Of a study that options made, the names that tables have and the names that were typed.
_TYPED = (
    (r"^event \d+ \((loss|rotation)\): day = ", r"--\1 "),
    (r"^event \d+ \(attack\): share = ", "--share "),
    (r"^event \d+ \(([a-z]+)\): ", r"--\1: "),
    (r"^policy \d+: max_age = ", "--max-age "),
    (r"give it an earlier day, or the study more days$", "give an earlier day, or more --days"),
)


def simulate(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE.toml", help="The study; --example prints one to start from.", show_default=False),
    ] = None,
    max_age: Annotated[
        list[str] | None,
        typer.Option("--max-age", help='A policy, such as "30 days"; may be given several times.', show_default=False),
    ] = None,
    backups: Annotated[
        int | None, typer.Option("--backups", help="The Backup Pins of each (1).", min=0, max=16, show_default=False)
    ] = None,
    population: Annotated[
        str | None,
        typer.Option("--population", help="website, staff, devices or build-agents.", show_default=False),
    ] = None,
    loss: Annotated[
        float | None, typer.Option("--loss", metavar="DAY", help="All keys are lost on this day.", show_default=False)
    ] = None,
    rotation: Annotated[
        float | None,
        typer.Option(
            "--rotation", metavar="DAY", help="The key is replaced by one never announced.", show_default=False
        ),
    ] = None,
    attack: Annotated[
        str | None,
        typer.Option(
            "--attack",
            metavar="FROM:UNTIL",
            help="Another CA's certificate is shown between these days.",
            show_default=False,
        ),
    ] = None,
    share: Annotated[
        float | None,
        typer.Option("--share", help="The share of clients that the attack reaches (1).", show_default=False),
    ] = None,
    clients: Annotated[
        int | None, typer.Option("--clients", help="How many clients (100000).", show_default=False)
    ] = None,
    days: Annotated[float | None, typer.Option("--days", help="For how many days (365).", show_default=False)] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="The same seed, the same visits (1).", show_default=False)
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option("--processes", help="At most how many; the numbers are the same.", min=1, show_default=False),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Draw the curves into this .svg or .png.", show_default=False)
    ] = None,
    dark: Annotated[bool, typer.Option("--dark", help="Draw for a dark page.")] = False,
    advise: Annotated[
        bool, typer.Option("--advise", help="Search max-age and the number of backups for your own numbers.")
    ] = False,
    as_json: JsonOption = False,
    example: Annotated[bool, typer.Option("--example", help="Print a study to start from.")] = False,
) -> None:
    """Play a policy on a population of clients: who is locked out, and whom an attacker fools, day by day.

    A file says who visits, what is pinned and what happens; the options do for one loss, rotation or attack.
    """
    for module in ("numpy",) if plot is None else ("numpy", "matplotlib"):
        if find_spec(module) is None:
            lacking("this", module, "simulate")
    if example:
        from dynpin.lab.simulation.study import EXAMPLE  # noqa: PLC0415 - it needs numpy

        typer.echo(EXAMPLE, nl=False)
        return
    played = _played(max_age, backups, population) | _happening(loss, rotation, attack, share)
    study = _study(file, played, _given(clients=clients, days=days, seed=seed), advise=advise)
    form = None if plot is None else _form(plot)
    if advise:
        advice = _advised(study, processes)
        if plot is not None and form is not None:
            from dynpin.lab.simulation.advice_picture import draw_advice  # noqa: PLC0415 - matplotlib takes a while

            _save(plot, draw_advice(study, advice, form, dark=dark))
        print_json(_advice_as_json(study, advice)) if as_json else _show_advice(study, advice)
    else:
        outcomes = _outcomes(study, processes)
        if plot is not None and form is not None:
            from dynpin.lab.simulation.picture import draw  # noqa: PLC0415 - matplotlib takes a while

            _save(plot, draw(study, outcomes, form, dark=dark))
        print_json(_as_json(study, outcomes)) if as_json else _show(study, outcomes)


def _study(file: Path | None, played: Mapping[str, object], size: Mapping[str, object], *, advise: bool) -> Study:
    from dynpin.lab.simulation.study import read_study, study_of  # noqa: PLC0415 - it needs numpy

    if file is not None and played:
        fail(f"{file} says what is played: beside it go --clients, --days and --seed alone")
    if file is None and not played and not advise:
        fail('give a study, or a policy and what happens: dynpin simulate --max-age "30 days" --loss 100')
    try:
        if file is not None:
            return read_study(file, size, advice=advise)
        study = study_of({"policy": [{"max_age": "30 days"}], **played, **size}, Path())
        # What nobody named is nobody's policy.
        return study if "policy" in played else replace(study, policies=()) if advise else study
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}")
    except InvalidStudy as error:
        fail(_as_typed(str(error), size, by_options=file is None))


def _as_typed(refusal: str, size: Mapping[str, object], *, by_options: bool) -> str:
    """What is wrong with a study, by the names of the options that it was given by."""
    for name in size:
        refusal = re.sub(rf"^(?:.*: )?study: {name} = ", f"--{name} ", refusal)
    for named, typed in _TYPED if by_options else ():
        refusal = re.sub(named, typed, refusal)
    return refusal


def _given(**values: object) -> dict[str, object]:
    return {key: value for key, value in values.items() if value is not None}


def _played(max_age: list[str] | None, backups: int | None, population: str | None) -> dict[str, object]:
    from dynpin.lab.simulation.reading import seconds  # noqa: PLC0415 - the command line starts without it

    found = _given(population=None if population is None else population.replace("-", " "))
    for age in max_age or ():
        try:
            seconds(age)
        except ValueError as error:
            fail(f"--max-age {error}")
    if max_age or backups is not None:
        found["policy"] = [_given(max_age=age, backups=backups) for age in max_age or ["30 days"]]
    return found


def _happening(
    loss: float | None, rotation: float | None, attack: str | None, share: float | None
) -> dict[str, object]:
    events: list[Mapping[str, object]] = []
    if attack is not None:
        begins, _, ends = attack.partition(":")
        try:
            events.append({"kind": "attack", "from": float(begins), "until": float(ends)} | _given(share=share))
        except ValueError:
            fail(f"--attack {attack}: give the days between which it goes on, such as 90:120")
    elif share is not None:
        fail("--share is that of an --attack")
    if rotation is not None:
        events.append({"kind": "rotation", "day": rotation, "to": "new"})
    if loss is not None:
        events.append({"kind": "loss", "day": loss})
    return {"event": events} if events else {}


def _form(plot: Path) -> Literal["svg", "png"]:
    # Said before the clients are played, which may take a while.
    suffix = plot.suffix.lower()
    if suffix not in (".svg", ".png"):
        fail(f"--plot {plot}: pictures are .svg or .png")
    if not plot.parent.is_dir():
        fail(f"--plot {plot}: there is no folder {plot.parent}")
    return "svg" if suffix == ".svg" else "png"


def _save(plot: Path, picture: bytes) -> None:
    try:
        plot.write_bytes(picture)
    except OSError as error:
        fail(f"--plot {plot}: {error.strerror}")


@contextmanager
def _progress(what: str, total: int) -> Generator[Callable[[int], None], None, None]:
    """A bar on stderr, where that is a terminal; it is told how much more is done."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    try:
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task(what, total=total)
            yield lambda done: bar.advance(task, done)
    except BrokenExecutor:
        fail("the system ended a process of the simulator, for want of memory as a rule: give --processes 1")


def _outcomes(study: Study, processes: int | None) -> tuple[Outcome, ...]:
    from dynpin.lab.simulation.run import simulate as play  # noqa: PLC0415 - it needs numpy

    with _progress(f"{study.clients:,} clients", study.clients) as progress:
        return play(study, processes=processes, progress=progress)


def _advised(study: Study, processes: int | None) -> Advice:
    from dynpin.lab.simulation.advice import advise  # noqa: PLC0415 - it needs numpy

    with _progress("a loss, an attack, a theft", 3) as progress:
        return advise(study, processes=processes, progress=progress)


# -- what a person reads ---------------------------------------------------------------------------------------------


def _show(study: Study, outcomes: tuple[Outcome, ...]) -> None:
    console = Console(width=_WIDTH, highlight=False)
    console.print(f"{study.clients:,} clients ({study.population.name}), {study.days:g} days, seed {study.seed}")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("policy", overflow="fold")
    for heading in ("locked out\nat most", "\nclient-days", "fooled\nat most", "\nclient-days", "turned\naway"):
        table.add_column(heading, justify="right", no_wrap=True)
    for outcome in outcomes:
        tally = outcome.tally
        table.add_row(
            Text(outcome.policy.name),
            _percent(float(outcome.locked_out.max())),
            f"{outcome.locked_out_days:,.0f}",
            _percent(float(outcome.fooled.max())),
            f"{outcome.fooled_days:,.0f}",
            _percent(tally.turned_away / tally.clients),
        )
    console.print(Padding(table, (1, 0)))
    _show_cap(console, study)
    if not study.events:
        console.print("Nothing happens in this study: --loss, --rotation and --attack, or events in a file, do.\n")
    console.print(
        "Locked out: the store refuses the site. Fooled: in an attacker's hands until the attack ends. "
        "Turned away: tried, and were refused at least once.",
        style="dim",
    )


def _show_cap(console: Console, study: Study) -> None:
    """Say it where clients hold max-age to less than a policy asks for."""
    from dynpin.durations import duration  # noqa: PLC0415 - beside what is shown

    for policy in study.policies:
        if study.held(policy) < policy.max_age and policy.pinned != "none":
            cap = duration(study.client_cap)
            told = f"{policy.name}: clients hold max-age to {cap} (client_cap), so these are the numbers of {cap}."
            console.print(Text(told, style="yellow"), end="\n\n")


def _show_advice(study: Study, advice: Advice) -> None:
    from dynpin.durations import duration  # noqa: PLC0415 - beside what is shown

    console = Console(width=_WIDTH, highlight=False)
    best = advice.best
    backups = f"{best.backups} backup{'' if best.backups == 1 else 's'}"
    said = f"max-age {duration(best.max_age)}, {backups}" if advice.pays else "no pins"
    console.print(f"[bold]{said}[/]   for the {study.population.name} population")
    for reason in advice.reasons:
        console.print(Padding(reason, (1, 0, 0, 2)))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("max-age", "locked out", "fooled", "cost"):
        table.add_column(heading, justify="left" if heading == "max-age" else "right")
    for choice in (*(each for each in advice.choices if each.backups == best.backups), advice.unpinned):
        style = "bold" if choice is (best if advice.pays else advice.unpinned) else None
        table.add_row(
            (duration(choice.max_age) if choice.max_age else "no pins")
            + ("   yours" if choice in advice.yours.values() else ""),
            f"{choice.locked_out:,.1f}",
            f"{choice.fooled:,.1f}",
            f"{choice.cost:,.1f}",
            style=style,
        )
    console.print(Padding(table, (1, 0, 0, 2)))
    _show_cap(console, study)
    console.print(
        Padding(
            f"Client-days a year for each 1,000 clients, with {backups}; cost is as of days locked out.", (1, 0, 0, 2)
        ),
        style="dim",
    )


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


# -- what a program reads --------------------------------------------------------------------------------------------


def _as_json(study: Study, outcomes: tuple[Outcome, ...]) -> object:
    return {
        "clients": study.clients,
        "days": study.days,
        "seed": study.seed,
        "population": study.population.name,
        "policies": [{"max_age_held": study.held(outcome.policy)} | _outcome_as_json(outcome) for outcome in outcomes],
    }


def _outcome_as_json(outcome: Outcome) -> dict[str, object]:
    tally, daily = outcome.tally, slice(None, None, max(1, 86_400 // outcome.step))
    return {
        "name": outcome.policy.name,
        "max_age": outcome.policy.max_age,
        "backups": outcome.policy.backups,
        "pin": outcome.policy.pinned,
        "locked_out_client_days": outcome.locked_out_days,
        "fooled_client_days": outcome.fooled_days,
        "locked_out_at_most": float(outcome.locked_out.max()),
        "fooled_at_most": float(outcome.fooled.max()),
        "clients_ever_locked_out": tally.ever_locked_out,
        "clients_ever_fooled": tally.ever_fooled,
        "clients_turned_away": tally.turned_away,
        "clients_protected": tally.protected,
        "refused_visits": tally.refused_visits,
        "visits": tally.visits,
        "pinned": [
            {"day": second / 86_400, "share": count / tally.clients} for second, count in sorted(tally.pinned.items())
        ],
        "day": [round(day, 6) for day in outcome.days[daily].tolist()],
        "locked_out": outcome.locked_out[daily].tolist(),
        "fooled": outcome.fooled[daily].tolist(),
    }


def _advice_as_json(study: Study, advice: Advice) -> object:
    return {
        "pins": advice.pays,
        "max_age": advice.best.max_age,
        "backups": advice.best.backups,
        "reasons": list(advice.reasons),
        "population": study.population.name,
        "risks": asdict(advice.risks),
        "unpinned_cost": advice.unpinned.cost,
        "yours": {name: _choice_as_json(choice) for name, choice in advice.yours.items()},
        "choices": [_choice_as_json(choice) for choice in advice.choices],
    }


def _choice_as_json(choice: Choice) -> object:
    return {
        "max_age": choice.max_age,
        "backups": choice.backups,
        "locked_out_client_days": choice.locked_out,
        "fooled_client_days": choice.fooled,
        "cost": choice.cost,
        "all_keys_lost_a_year": choice.all_lost,
        "days_locked_out_by_a_loss": choice.locked_out_for,
        "share_fooled_by_an_attack": choice.share_fooled,
    }
