"""The max-age and the number of backups that cost an operator's users least, with reasons, from his own numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from dynpin.counts import counted
from dynpin.durations import duration
from dynpin.lab.simulation.calendar import Attack, Compromise, Event, Loss
from dynpin.lab.simulation.recovery import Recovery
from dynpin.lab.simulation.risks import Risks
from dynpin.lab.simulation.run import Outcome, simulate
from dynpin.lab.simulation.site_policy import SitePolicy
from dynpin.lab.simulation.study import Study
from dynpin.lab.simulation.study_table import DAY

__all__ = ["Advice", "Choice", "Risks", "advise"]

_HOUR = 3_600
_MAX_AGES = (
    *(hours * _HOUR for hours in (1, 6, 12)),
    *(days * DAY for days in (1, 2, 3, 5, 7, 10, 12, 14, 17, 21, 25, 30, 37, 45, 60, 90, 120, 180, 270, 365)),
)
_BACKUPS = (1, 2, 3, 4)
# More clients would make the figures more precise than the operator's guesses about his risks.
_CLIENTS = 20_000
_CLOSE = 1.05


@dataclass(frozen=True)
class Choice:
    """A max-age and a number of backups, with their cost a year for each 1,000 clients.

    Attributes:
        max_age: seconds; 0 for no pins at all.
        backups: the number of Backup Pins.
        locked_out: client-days locked out.
        fooled: client-days in an attacker's hands.
        cost: both, in client-days locked out; those in an attacker's hands have the operator's weight.
        healed: client-days locked out if the site has a signed list.
        healed_cost: the cost with these.
        all_lost: how often all keys are lost, a year.
        locked_out_for: how many days a client is then locked out, on average over all clients.
        waits: the days from a refusal to the end of that lock-out, on average over all clients.
        healed_waits: the same if the site has a signed list.
        share_fooled: the share that an attacker has at the end of an attack, of the clients that it reaches.
        chance: half the width of the 95 % interval of each figure, by its name, at most: clients are drawn at random.
    """

    max_age: int
    backups: int
    locked_out: float
    fooled: float
    cost: float
    healed: float
    healed_cost: float
    all_lost: float
    locked_out_for: float
    waits: float
    healed_waits: float
    share_fooled: float
    chance: Mapping[str, float] = field(compare=False)


@dataclass(frozen=True)
class Advice:
    """The recommended choice, and why.

    Attributes:
        best: the choice with the lowest cost.
        choices: all choices that were compared.
        unpinned: the cost of sending no pins.
        yours: the study's own policies as choices, by their names; only those that pin just the key.
        with_recovery: the choice with the lowest cost if the site has a signed list.
        risks: the operator's numbers.
        recovery: that list: how soon it is signed, and when clients look.
        reasons: why, in words.
    """

    best: Choice
    choices: tuple[Choice, ...]
    unpinned: Choice
    yours: Mapping[str, Choice]
    with_recovery: Choice
    risks: Risks
    recovery: Recovery
    reasons: tuple[str, ...]

    @property
    def pays(self) -> bool:
        """Whether pinning costs less than not pinning."""
        return self.best.cost < self.unpinned.cost


def advise(study: Study, *, processes: int | None = None, progress: Callable[[int], None] | None = None) -> Advice:
    """Search max-age and the number of backups for a study's population and risks. Its calendar is not used.

    The study's own policies are compared with the other choices.

    Three misfortunes are played under every max-age: the loss of all keys, an attack, and the use of a stolen key. The
    cost of each is multiplied by its frequency. With each backup the chance to lose all keys falls, and the chance of a
    theft rises. The loss is played with a signed list too. The list's keys are elsewhere, and are not lost.

    Args:
        study: its population, risks, recovery, policies, seed and client's cap are used. At most 20,000 clients are
            played.
        processes: as for :func:`~dynpin.lab.simulation.run.simulate`.
        progress: called each time that one of the three has been played.
    """
    risks, recovery = study.risks, study.recovery or Recovery()
    own = {
        policy.name: (min(policy.max_age, study.client_cap), policy.backups)
        for policy in study.policies
        if policy.pinned == "key" and policy.backups
    }
    tried = {*_MAX_AGES, *(age for age, _ in own.values()), study.client_cap}
    ages = sorted(age for age in tried if age <= study.client_cap)
    # Long enough before, so that every client notes pins, and long enough after, so that every pin expires.
    happens = 2 * study.client_cap
    ends = happens + max(study.client_cap, risks.attack_lasts) + DAY
    stage = replace(
        study,
        clients=min(study.clients, _CLIENTS),
        days=ends / DAY,
        policies=(*(SitePolicy(str(age), age) for age in ages), SitePolicy("none", DAY, pinned="none")),
        recovery=None,
    )

    def played(*events: Event, recovery: Recovery | None = None) -> tuple[Outcome, ...]:
        outcomes = simulate(replace(stage, events=events, recovery=recovery), processes=processes)
        if progress is not None:
            progress(1)
        return outcomes

    until = happens + risks.attack_lasts
    lost = played(Loss(happens), recovery=recovery)
    attacked = played(Attack(happens, until))
    stolen = played(Compromise(happens, noticed=risks.noticed), Attack(happens, until, shows="stolen-key"))

    def choice(number: int, max_age: int, backups: int) -> Choice:
        clients = stage.clients
        loss = lost[number]
        healing = loss.with_recovery or loss
        locked_out_for = loss.locked_out_days / clients
        all_lost = 0.0 if not max_age else risks.disasters + risks.losses * _backups_gone(risks, backups)
        thefts = risks.thefts + risks.backup_thefts * backups
        attack, theft = attacked[number], stolen[number]
        # A year's attacks and thefts, for each 1,000 clients.
        reached = 1000 * risks.attack_share / clients
        fooled = reached * (risks.attacks * attack.fooled_days + thefts * theft.fooled_days)
        locked_out, healed = (1000 * all_lost * each.locked_out_days / clients for each in (loss, healing))
        chance = {
            name: 1000 * all_lost * each.half_width("locked_out") / clients
            for name, each in (("locked_out", loss), ("healed", healing))
        }
        # All four use the same clients, so the halves add up at most.
        chance["fooled"] = reached * (risks.attacks * attack.half_width("fooled") + thefts * theft.half_width("fooled"))
        for name, part in (("cost", "locked_out"), ("healed_cost", "healed")):
            chance[name] = chance[part] + risks.fooled_weight * chance["fooled"]
        return Choice(
            max_age=max_age,
            backups=backups,
            locked_out=locked_out,
            fooled=fooled,
            cost=locked_out + risks.fooled_weight * fooled,
            healed=healed,
            healed_cost=healed + risks.fooled_weight * fooled,
            chance=chance,
            all_lost=all_lost,
            locked_out_for=locked_out_for,
            waits=loss.waited_days / clients,
            healed_waits=healing.waited_days / clients,
            share_fooled=attack.tally.ever_fooled / clients,
        )

    reserves = sorted({*_BACKUPS, *(backups for _, backups in own.values())})
    choices = tuple(choice(number, age, backups) for backups in reserves for number, age in enumerate(ages))
    yours = {name: each for name, wanted in own.items() for each in choices if (each.max_age, each.backups) == wanted}
    # If costs are equal, fewer backups.
    best = min(choices, key=lambda each: (round(each.cost, 9), each.backups))
    with_recovery = min(choices, key=lambda each: (round(each.healed_cost, 9), each.backups))
    unpinned = choice(len(ages), 0, 0)
    reasons = (*_reasons(best, choices, unpinned, yours, risks), _about_recovery(best, with_recovery, recovery))
    return Advice(best, choices, unpinned, yours, with_recovery, risks, recovery, reasons)


def _backups_gone(risks: Risks, backups: int) -> float:
    """The chance that all backups are lost when the deployed key is lost.

    Each backup was lost since the last check with 1 - exp(-losses t), where t is between 0 and the time between checks.
    This is the mean of its power, by Simpson's rule.
    """
    span = risks.checked / (365 * DAY)
    steps = 64
    values = [(-math.expm1(-risks.losses * span * step / steps)) ** backups for step in range(steps + 1)]
    return (values[0] + values[-1] + 4 * sum(values[1:-1:2]) + 2 * sum(values[2:-1:2])) / (3 * steps)


def _reasons(
    best: Choice, choices: tuple[Choice, ...], unpinned: Choice, yours: Mapping[str, Choice], risks: Risks
) -> list[str]:
    same_backups = [each for each in choices if each.backups == best.backups]
    where = same_backups.index(best)
    told: list[str] = []
    if best.cost < unpinned.cost:
        told.append(
            f"Without pins the year costs {_days(unpinned.cost)} for each 1,000 clients, all of it through attackers; "
            f"with {duration(best.max_age)} and {counted(best.backups, 'backup')} it costs {_days(best.cost)}: "
            f"{_days(best.locked_out)} locked out, and {_days(best.fooled)} in an attacker's hands, which weigh "
            f"{risks.fooled_weight:g} times."
        )
    else:
        told.append(
            f"By these numbers pins cost more than they save: at best {_days(best.cost)} a year for each 1,000 "
            f"clients, against {_days(unpinned.cost)} without. Of those that pin, {duration(best.max_age)} with "
            f"{counted(best.backups, 'backup')} costs least, for these reasons."
        )
    told += [
        f"Your policy {name!r} costs {_days(each.cost)}: {_days(each.locked_out)} locked out, and "
        f"{_days(each.fooled)} in an attacker's hands."
        for name, each in yours.items()
        if each != best
    ]
    if where > 0:
        shorter = same_backups[max(0, where - 2)]
        expires = shorter.max_age < risks.attack_lasts
        told.append(
            f"Shorter, at {duration(shorter.max_age)}, more clients come back with no living pins: an attack of "
            f"{duration(risks.attack_lasts)} ends with {_percent(shorter.share_fooled)} of those it reaches, "
            f"against {_percent(best.share_fooled)}."
            + (" Pins must outlive the attack, which does not renew them." if expires else "")
        )
    else:
        told.append(
            "It is the shortest that was tried: attacks are so rare or do so little harm here, or keys are lost so "
            "often, that it is better to forget pins soon."
        )
    if where + 1 < len(same_backups):
        longer = same_backups[min(len(same_backups) - 1, where + 2)]
        told.append(
            f"Longer, at {duration(longer.max_age)}, a loss of all keys locks the average client out for "
            f"{longer.locked_out_for:.1f} days, against {best.locked_out_for:.1f}."
        )
    else:
        told.append("It is the longest that clients keep pins: losses are rare enough here for a longer max-age.")
    told.append(_about_backups(best, choices))
    close = [each.max_age for each in same_backups if each.cost <= _CLOSE * best.cost]
    if len(close) > 1:
        told.append(
            f"The exact value matters little: anything from {duration(min(close))} to {duration(max(close))} costs "
            "within 5 % of it. Choose by how soon you can rotate: a planned rotation waits for max-age."
        )
    return told


def _about_backups(best: Choice, choices: tuple[Choice, ...]) -> str:
    of_age = {each.backups: each for each in choices if each.max_age == best.max_age}
    years = {backups: _years(each.all_lost) for backups, each in of_age.items()}
    fewer, more = of_age.get(best.backups - 1), of_age.get(best.backups + 1)
    parts = [f"With {counted(best.backups, 'backup')} all keys are lost {years[best.backups]}"]
    if fewer is not None:
        parts.append(f"with {fewer.backups} {years[fewer.backups]}")
    if more is not None:
        parts.append(
            f"one more would make it {years[more.backups]}, and is one more key to steal: together "
            f"{_days(abs(more.cost - best.cost))} {'worse' if more.cost >= best.cost else 'better'}"
        )
    return ", ".join(parts[:2]) + ("; " + parts[2] if len(parts) > 2 else "") + "." if fewer else "; ".join(parts) + "."


def _about_recovery(best: Choice, healed: Choice, recovery: Recovery) -> str:
    share = "" if recovery.share == 1 else f" for {_percent(recovery.share)} of the clients"
    watch = " which clients follow," if recovery.watch == "followed" else ""
    signed = f"signed {duration(recovery.signed_after)} after a loss" if recovery.signed_after else "signed at once"
    told = (
        f"With a signed list{share},{watch} {signed}, it costs "
        f"{_days(best.healed_cost)}: {_days(best.healed)} locked out, not {_days(best.locked_out)}. After a loss of "
        f"all keys a client waits {best.healed_waits:.2g} days on average from its refusal on, not {best.waits:.2g}."
    )
    if (healed.max_age, healed.backups) != (best.max_age, best.backups):
        told += (
            f" Then {duration(healed.max_age)} with {counted(healed.backups, 'backup')} costs least: "
            f"{_days(healed.healed_cost)}."
        )
    return told


def _years(rate: float) -> str:
    if rate <= 0:
        return "never"
    return f"{rate:.2g} times a year" if rate >= 1 else f"once in {counted(round(1 / rate), 'year')}"


def _days(days: float) -> str:
    return f"{days:,.3g} client-days" if days < 1000 else f"{days:,.0f} client-days"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"
