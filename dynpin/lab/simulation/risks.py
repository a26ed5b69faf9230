"""The operator's own numbers: how often each misfortune happens, and how bad it is."""

from __future__ import annotations

from dataclasses import dataclass, fields

from dynpin.lab.simulation.study_table import DAY, Table

__all__ = ["Risks", "read_risks"]


@dataclass(frozen=True)
class Risks:
    """The numbers that the advice uses. Rates are for a year; lengths are in seconds.

    Attributes:
        losses: how often one key is lost, independently for each key.
        disasters: how often all keys are lost at once, with the backups: by a fire, or a forgotten passphrase.
        checked: how often the operator checks that every backup is still there.
        thefts: how often the deployed key is stolen.
        backup_thefts: how often a backup is stolen, independently for each backup; backups are kept offline.
        noticed: how long a theft is not noticed.
        attacks: how often somebody with a certificate of another CA answers instead of the site.
        attack_lasts: how long such an attack lasts; also for a stolen key.
        attack_share: the share of the clients that it reaches.
        fooled_weight: how many client-days locked out are as bad as one client-day in an attacker's hands.
    """

    losses: float = 0.05
    disasters: float = 0.005
    checked: int = 90 * DAY
    thefts: float = 0.01
    backup_thefts: float = 0.001
    noticed: int = 7 * DAY
    attacks: float = 0.5
    attack_lasts: int = 14 * DAY
    attack_share: float = 0.01
    fooled_weight: float = 10.0


def read_risks(values: object) -> Risks:
    """The ``[risks]`` of a study, with defaults for missing values.

    Raises:
        InvalidStudy: for invalid values.
    """
    table = Table("risks", values, [each.name for each in fields(Risks)])
    usual = Risks()
    return Risks(
        losses=table.number("losses", usual.losses, most=100),
        disasters=table.number("disasters", usual.disasters, most=100),
        checked=table.span("checked", f"{usual.checked // DAY} days"),
        thefts=table.number("thefts", usual.thefts, most=100),
        backup_thefts=table.number("backup_thefts", usual.backup_thefts, most=100),
        noticed=table.span("noticed", f"{usual.noticed // DAY} days"),
        attacks=table.number("attacks", usual.attacks, most=1_000),
        attack_lasts=table.span("attack_lasts", f"{usual.attack_lasts // DAY} days"),
        attack_share=table.number("attack_share", usual.attack_share, most=1),
        fooled_weight=table.number("fooled_weight", usual.fooled_weight),
    )
