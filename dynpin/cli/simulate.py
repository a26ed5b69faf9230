"""`dynpin simulate`: what a pinning policy will do to its users, before it happens."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dynpin.cli.errors import fail, lacking
from dynpin.cli.options import DarkOption, JsonOption, ProcessesOption
from dynpin.cli.progress import counting_bar
from dynpin.cli.simulate_output import Form, print_advice, print_outcomes
from dynpin.cli.written import picture_form, save
from dynpin.errors import InvalidStudy

if TYPE_CHECKING:
    from dynpin.lab.simulation import Advice, Outcome, Study

__all__ = ["simulate"]

_FORMS: tuple[Literal["svg", "png"], ...] = ("svg", "png")
# For a study made from options: the names in tables, and the names that were typed.
_TYPED = (
    (r"^event \d+ \((loss|rotation)\): day = ", r"--\1 "),
    (r"^event \d+ \(attack\): share = ", "--share "),
    (r"^event \d+ \(([a-z]+)\): ", r"--\1: "),
    (r"^policy \d+: max_age = ", "--max-age "),
    (r"^recovery: signed_after = ", "--recovery "),
    (r"give it an earlier day, or the study more days$", "give an earlier day, or more --days"),
)


def simulate(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE.toml", help="The study; --example prints one to start from.", show_default=False),
    ] = None,
    max_age: Annotated[
        list[str] | None,
        typer.Option(
            "--max-age", metavar="LENGTH", help='A policy, such as "30 days". Repeatable.', show_default=False
        ),
    ] = None,
    backups: Annotated[
        int | None,
        typer.Option(
            "--backups", help="How many Backup Pins each has. The default is 1.", min=0, max=16, show_default=False
        ),
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
        typer.Option(
            "--share", help="The share of clients that the attack reaches. The default is 1.", show_default=False
        ),
    ] = None,
    recovery: Annotated[
        str | None,
        typer.Option(
            "--recovery",
            metavar="LENGTH",
            help='Also play it with signed lists, signed this long after a loss, such as "1 day".',
            show_default=False,
        ),
    ] = None,
    clients: Annotated[
        int | None, typer.Option("--clients", help="How many clients. The default is 100000.", show_default=False)
    ] = None,
    days: Annotated[
        float | None, typer.Option("--days", help="For how many days. The default is 365.", show_default=False)
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", help="The same seed gives the same visits. The default is 1.", show_default=False),
    ] = None,
    processes: ProcessesOption = None,
    picture: Annotated[
        Path | None, typer.Option("--plot", help="Draw the curves into this .svg or .png.", show_default=False)
    ] = None,
    dark: DarkOption = False,
    advise: Annotated[
        bool, typer.Option("--advise", help="Search max-age and the number of backups for your own numbers.")
    ] = False,
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the figures as CSV.")] = False,
    example: Annotated[bool, typer.Option("--example", help="Print a study to start from.")] = False,
) -> None:
    """Play a policy on a population of clients: who is locked out, and whom an attacker fools, day by day.

    A file describes the clients, the policies and the events; the options are enough for one loss, rotation or attack.

    Example: dynpin simulate --max-age "30 days" --backups 1 --loss 100
    """
    for module in ("numpy",) if picture is None else ("numpy", "matplotlib"):
        if find_spec(module) is None:
            lacking("this", module, "simulate")
    if example:
        if as_json:
            fail("--example prints a file: leave --json out")
        from dynpin.lab.simulation.study import EXAMPLE  # noqa: PLC0415 - it needs numpy

        typer.echo(EXAMPLE, nl=False)
        return
    if as_json and as_csv:
        fail("give --json or --csv: both would be on stdout")
    played = _played(max_age, backups, population) | _happening(loss, rotation, attack, share)
    if recovery is not None:
        played["recovery"] = {"signed_after": recovery}
    study = _study(file, played, _typed(clients=clients, days=days, seed=seed), advise=advise)
    # Checked before the clients are played, which may take a while.
    form = None if picture is None else picture_form(picture, _FORMS)
    if advise:
        advice = _advised(study, processes)
        print_advice(study, advice, _output(as_json=as_json, as_csv=as_csv))
        if picture is not None and form is not None:
            from dynpin.lab.simulation.advice_picture import draw_advice  # noqa: PLC0415 - matplotlib takes a while

            save(picture, draw_advice(study, advice, form, dark=dark))
    else:
        outcomes = _outcomes(study, processes)
        print_outcomes(study, outcomes, _output(as_json=as_json, as_csv=as_csv))
        if picture is not None and form is not None:
            from dynpin.lab.simulation.curves import draw  # noqa: PLC0415 - matplotlib takes a while

            save(picture, draw(study, outcomes, form, dark=dark))


def _output(*, as_json: bool, as_csv: bool) -> Form:
    return "json" if as_json else "csv" if as_csv else "table"


def _study(file: Path | None, played: Mapping[str, object], size: Mapping[str, object], *, advise: bool) -> Study:
    from dynpin.lab.simulation.study import read_study, study_of  # noqa: PLC0415 - it needs numpy

    if file is not None and played:
        fail(f"{file} describes the study: only --clients, --days and --seed may be given besides")
    if file is None and not played and not advise:
        fail('give a study, or a policy and an event: dynpin simulate --max-age "30 days" --loss 100')
    try:
        if file is not None:
            return read_study(file, size, advice=advise)
        study = study_of({"policy": [{"max_age": "30 days"}], **played, **size}, Path())
        # Without a policy of the user's there is none to compare.
        return study if "policy" in played else replace(study, policies=()) if advise else study
    except InvalidStudy as error:
        fail(_as_typed(str(error), size, by_options=file is None))


def _as_typed(refusal: str, size: Mapping[str, object], *, by_options: bool) -> str:
    """The fault in a study, with the names of the options instead of those in a file."""
    for name in size:
        refusal = re.sub(rf"^(?:.*: )?study: {name} = ", f"--{name} ", refusal)
    for named, typed in _TYPED if by_options else ():
        refusal = re.sub(named, typed, refusal)
    return refusal


def _typed(**values: object) -> dict[str, object]:
    return {key: value for key, value in values.items() if value is not None}


def _played(max_age: list[str] | None, backups: int | None, population: str | None) -> dict[str, object]:
    from dynpin.lab.simulation.study_table import seconds  # noqa: PLC0415 - the command line starts without it

    found = _typed(population=None if population is None else population.replace("-", " "))
    for age in max_age or ():
        try:
            seconds(age)
        except ValueError as error:
            fail(f"--max-age {error}")
    if max_age or backups is not None:
        found["policy"] = [_typed(max_age=age, backups=backups) for age in max_age or ["30 days"]]
    return found


def _happening(
    loss: float | None, rotation: float | None, attack: str | None, share: float | None
) -> dict[str, object]:
    events: list[Mapping[str, object]] = []
    if attack is not None:
        begins, _, ends = attack.partition(":")
        try:
            events.append({"kind": "attack", "from": float(begins), "until": float(ends)} | _typed(share=share))
        except ValueError:
            fail(f"--attack {attack}: give its first and last day, such as 90:120")
    elif share is not None:
        fail("--share needs an --attack")
    if rotation is not None:
        events.append({"kind": "rotation", "day": rotation, "to": "new"})
    if loss is not None:
        events.append({"kind": "loss", "day": loss})
    return {"event": events} if events else {}


def _outcomes(study: Study, processes: int | None) -> tuple[Outcome, ...]:
    from dynpin.lab.simulation.run import simulate as play  # noqa: PLC0415 - it needs numpy

    with counting_bar(study.clients, "clients") as progress:
        return play(study, processes=processes, progress=progress)


def _advised(study: Study, processes: int | None) -> Advice:
    from dynpin.lab.simulation.advice import advise  # noqa: PLC0415 - it needs numpy

    with counting_bar(3, "studies: a loss, an attack, a theft") as progress:
        return advise(study, processes=processes, progress=progress)
