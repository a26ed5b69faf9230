"""The output of `dynpin simulate`: tables for a person, JSON and CSV for a program."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Literal

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from dynpin.cli.consoles import text_console
from dynpin.cli.printing import print_json
from dynpin.counts import counted
from dynpin.deploy.tables import csv_table
from dynpin.durations import duration

if TYPE_CHECKING:
    from rich.console import Console

    from dynpin.lab.simulation import Advice, Outcome, Recovery, Study
    from dynpin.lab.simulation.advice import Choice

__all__ = ["Form", "print_advice", "print_outcomes"]

Form = Literal["table", "json", "csv"]
_WIDTH = 80
_CHANCE = "\N{PLUS-MINUS SIGN}: half of the 95 % interval, since the clients are drawn."


def print_outcomes(study: Study, outcomes: tuple[Outcome, ...], form: Form) -> None:
    """Print the effects of policies on their users."""
    match form:
        case "json":
            print_json(_as_json(study, outcomes))
        case "csv":
            _print_csv(_rows(study, outcomes))
        case "table":
            _show(study, outcomes)


def print_advice(study: Study, advice: Advice, form: Form) -> None:
    """Print an advice."""
    match form:
        case "json":
            print_json(_advice_as_json(study, advice))
        case "csv":
            _print_csv(_choice_as_json(choice) for choice in (*advice.choices, advice.unpinned))
        case "table":
            _show_advice(study, advice)


# -- for a person ----------------------------------------------------------------------------------------------------


def _show(study: Study, outcomes: tuple[Outcome, ...]) -> None:
    console = text_console(_WIDTH)
    console.print(
        f"{counted(study.clients, 'client')} ({study.population.name}), {study.days:g} days, seed {study.seed}"
    )
    table = _table("policy", "locked out\nat most", "\nclient-days", "fooled\nat most", "\nclient-days", "turned\naway")
    for outcome in outcomes:
        table.add_row(
            study.label(outcome.policy),
            _share(float(outcome.locked_out.max()), outcome.interval_at_most("locked_out")),
            _days(outcome.locked_out_days, outcome.half_width("locked_out")),
            _share(float(outcome.fooled.max()), outcome.interval_at_most("fooled")),
            _days(outcome.fooled_days, outcome.half_width("fooled")),
            _share(outcome.turned_away, outcome.interval_turned_away),
        )
    console.print(Padding(table, (1, 0)))
    _show_cap(console, study)
    if study.recovery is not None:
        _show_recovery(console, study.recovery, study, outcomes)
    if not study.events:
        console.print("This study has no events: use --loss, --rotation and --attack, or a file with events.\n")
    console.print(
        "Locked out: the store refuses the site. Fooled: in an attacker's hands until the attack ends. "
        f"Turned away: tried, and were refused at least once. {_CHANCE}",
        style="dim",
    )


def _show_recovery(console: Console, recovery: Recovery, study: Study, outcomes: tuple[Outcome, ...]) -> None:
    """Show client-days without signed lists and with them, side by side."""
    table = _table("policy", "locked out\nwithout list", "\nwith list", "waits\nwithout list", "\nwith list")
    for outcome in outcomes:
        healed = outcome.with_recovery
        if healed is not None:
            table.add_row(
                study.label(outcome.policy),
                *(_days(each.locked_out_days, each.half_width("locked_out")) for each in (outcome, healed)),
                *(_days(each.waited_days, each.half_width("waited")) for each in (outcome, healed)),
            )
    looks = "daily, and after a refusal" if recovery.watch == "followed" else "after a refusal"
    soon = f"{duration(recovery.signed_after)} after each change" if recovery.signed_after else "with each change"
    console.print(
        f"Signed lists: {100 * recovery.share:.4g} % of the clients' sites have one, signed {soon}. "
        f"Clients look {looks}. Client-days:"
    )
    console.print(Padding(table, (1, 0)))
    console.print("Waits: from a refusal until the site would let the client in.\n", style="dim")


def _show_cap(console: Console, study: Study) -> None:
    """Say if the clients' cap is below a policy's max-age, and if they note none of its pins."""
    for policy in study.policies:
        if not policy.backups and policy.pinned != "none":
            told = f"{policy.name}: clients note no header without a Backup Pin (RFC 7469 §2.5), so nobody has pins."
            console.print(told, style="yellow", end="\n\n")
            continue
        if study.held(policy) < policy.max_age and policy.pinned != "none":
            cap = duration(study.client_cap)
            told = f"{policy.name}: clients hold max-age to {cap} (client_cap), so these are the numbers of {cap}."
            console.print(told, style="yellow", end="\n\n")


def _show_advice(study: Study, advice: Advice) -> None:
    console = text_console(_WIDTH)
    best = advice.best
    backups = counted(best.backups, "backup")
    said = f"max-age {duration(best.max_age)}, {backups}" if advice.pays else "no pins"
    console.print(Text.assemble((said, "bold"), f"   for the {study.population.name} population"))
    for reason in advice.reasons:
        console.print(Padding(reason, (1, 0, 0, 2)))
    table = _table("max-age", "locked out", "fooled", "cost", "locked out,\nwith list", "cost,\nwith list")
    table.padding = (0, 1, 0, 0)
    for choice in (*(each for each in advice.choices if each.backups == best.backups), advice.unpinned):
        style = "bold" if choice is (best if advice.pays else advice.unpinned) else None
        capped = " (cap)" if choice.max_age == study.client_cap else ""
        table.add_row(
            (f"{duration(choice.max_age)}{capped}" if choice.max_age else "no pins")
            + ("   yours" if choice in advice.yours.values() else ""),
            *(
                f"{getattr(choice, name):,.1f} \N{PLUS-MINUS SIGN}{choice.chance[name]:,.1f}"
                for name in ("locked_out", "fooled", "cost", "healed", "healed_cost")
            ),
            style=style,
        )
    console.print(Padding(table, (1, 0, 0, 2)))
    _show_cap(console, study)
    told = f"Client-days a year for each 1,000 clients, with {backups}; cost is as of days locked out. {_CHANCE}"
    console.print(Padding(told, (1, 0, 0, 2)), style="dim")


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(first, overflow="fold")
    for heading in others:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _share(share: float, interval: tuple[float, float]) -> str:
    low, high = interval
    return f"{100 * share:.2f} %\n\N{PLUS-MINUS SIGN}{100 * max(share - low, high - share):.2f}"


def _days(days: float, half_width: float) -> str:
    return f"{days:,.0f}\n\N{PLUS-MINUS SIGN}{half_width:,.0f}"


# -- for a program ---------------------------------------------------------------------------------------------------


def _as_json(study: Study, outcomes: tuple[Outcome, ...]) -> object:
    recovery = study.recovery
    return {
        "clients": study.clients,
        "days": study.days,
        "seed": study.seed,
        "population": study.population.name,
        "recovery": None if recovery is None else asdict(recovery),
        "policies": [
            {"max_age_held": study.held(outcome.policy)}
            | _figures(outcome)
            | _curves(outcome)
            | {
                "with_recovery": None
                if outcome.with_recovery is None
                else _figures(outcome.with_recovery) | _curves(outcome.with_recovery)
            }
            for outcome in outcomes
        ],
    }


def _rows(study: Study, outcomes: tuple[Outcome, ...]) -> Iterable[Mapping[str, object]]:
    """One row for each policy, and a second one with signed lists."""
    for outcome in outcomes:
        for each in (outcome, outcome.with_recovery):
            if each is not None:
                held = {"max_age_held": study.held(outcome.policy), "signed_list": each is not outcome}
                yield _figures(each) | held


def _figures(outcome: Outcome) -> dict[str, object]:
    tally = outcome.tally
    figures: dict[str, object] = {
        "name": outcome.policy.name,
        "max_age": outcome.policy.max_age,
        "backups": outcome.policy.backups,
        "pin": outcome.policy.pinned,
    }
    for name, days, half in (
        ("locked_out", outcome.locked_out_days, outcome.half_width("locked_out")),
        ("fooled", outcome.fooled_days, outcome.half_width("fooled")),
        ("waited", outcome.waited_days, outcome.half_width("waited")),
    ):
        figures |= _with_interval(f"{name}_client_days", days, (max(0.0, days - half), days + half))
    most = (float(outcome.locked_out.max()), float(outcome.fooled.max()))
    figures |= _with_interval("locked_out_at_most", most[0], outcome.interval_at_most("locked_out"))
    figures |= _with_interval("fooled_at_most", most[1], outcome.interval_at_most("fooled"))
    figures |= _with_interval("turned_away", outcome.turned_away, outcome.interval_turned_away)
    return figures | {
        "clients_ever_locked_out": tally.ever_locked_out,
        "clients_ever_fooled": tally.ever_fooled,
        "clients_turned_away": tally.turned_away,
        "clients_protected": tally.protected,
        "refused_visits": tally.refused_visits,
        "visits": tally.visits,
    }


def _with_interval(name: str, value: float, interval: tuple[float, float]) -> dict[str, object]:
    return {name: value, f"{name}_low": interval[0], f"{name}_high": interval[1]}


def _curves(outcome: Outcome) -> dict[str, object]:
    tally, daily = outcome.tally, slice(None, None, max(1, 86_400 // outcome.step))
    return {
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
        "with_recovery": {"max_age": advice.with_recovery.max_age, "backups": advice.with_recovery.backups},
        "reasons": list(advice.reasons),
        "population": study.population.name,
        "risks": asdict(advice.risks),
        "recovery": asdict(advice.recovery),
        "unpinned_cost": advice.unpinned.cost,
        "yours": {name: _choice_as_json(choice) for name, choice in advice.yours.items()},
        "choices": [_choice_as_json(choice) for choice in advice.choices],
    }


def _choice_as_json(choice: Choice) -> dict[str, object]:
    figures: dict[str, object] = {"max_age": choice.max_age, "backups": choice.backups}
    for name, field in (
        ("locked_out_client_days", "locked_out"),
        ("fooled_client_days", "fooled"),
        ("cost", "cost"),
        ("locked_out_client_days_with_recovery", "healed"),
        ("cost_with_recovery", "healed_cost"),
    ):
        value, half = getattr(choice, field), choice.chance[field]
        figures |= _with_interval(name, value, (max(0.0, value - half), value + half))
    return figures | {
        "all_keys_lost_a_year": choice.all_lost,
        "days_locked_out_by_a_loss": choice.locked_out_for,
        "days_waited_after_a_loss": choice.waits,
        "days_waited_after_a_loss_with_recovery": choice.healed_waits,
        "share_fooled_by_an_attack": choice.share_fooled,
    }


def _print_csv(rows: Iterable[Mapping[str, object]]) -> None:
    listed = list(rows)
    sys.stdout.write(csv_table(list(listed[0]), (list(row.values()) for row in listed)))
    sys.stdout.flush()
