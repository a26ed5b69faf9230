"""The result of a run: a verdict for each rule, and the number of verdicts of each kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from dynpin import __version__
from dynpin.deploy.tables import csv_table, html_table
from dynpin.lab.score.rules import LEVELS, Level, Rule

__all__ = ["Outcome", "Score", "Verdict"]

Outcome = Literal["held", "broken", "not testable"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result for one rule.

    Attributes:
        rule: the rule.
        outcome: held, broken or not testable.
        seen: the observations, step by step, in words.
        why: what broke the rule, or why it cannot be tested; empty if it held.
    """

    rule: Rule
    outcome: Outcome
    seen: tuple[str, ...] = ()
    why: str = ""

    def to_dict(self) -> dict[str, object]:
        """The verdict as a JSON object."""
        about = {name: getattr(self.rule, name) for name in ("id", "section", "level", "text")}
        return about | {name: value for name, value in asdict(self).items() if name != "rule"}


@dataclass(frozen=True, slots=True)
class Score:
    """A run.

    Attributes:
        agent: the agent as the user named it.
        title: its name, for people.
        model: whether it is a model of a client, not the client itself.
        verdicts: in the order of the rules.
    """

    agent: str
    title: str
    model: bool
    verdicts: Sequence[Verdict]

    @property
    def counts(self) -> Mapping[Outcome, int]:
        """How many rules have each outcome."""
        found = Counter(verdict.outcome for verdict in self.verdicts)
        return {outcome: found[outcome] for outcome in ("held", "broken", "not testable")}

    def of(self, outcome: Outcome) -> list[Verdict]:
        """The verdicts with this outcome."""
        return [verdict for verdict in self.verdicts if verdict.outcome == outcome]

    @property
    def broken_by_level(self) -> Mapping[Level, int]:
        """How many rules of each level it breaks; levels with none are left out."""
        found = Counter(verdict.rule.level for verdict in self.of("broken"))
        return {level: found[level] for level in LEVELS if found[level]}

    def to_dict(self) -> dict[str, object]:
        """The run as a JSON object."""
        return {
            "dynpin": __version__,
            "agent": self.agent,
            "title": self.title,
            "model": self.model,
            "counts": {outcome.replace(" ", "_"): count for outcome, count in self.counts.items()},
            "broken_by_level": {level.lower(): self.broken_by_level.get(level, 0) for level in LEVELS},
            "rules": [verdict.to_dict() for verdict in self.verdicts],
        }

    def to_csv(self) -> str:
        """The verdicts as CSV, one line for each rule."""
        return csv_table(
            ("rule", "section", "level", "outcome", "why"),
            (
                (each.rule.id, each.rule.section, each.rule.level, each.outcome, " ".join(each.why.split()))
                for each in self.verdicts
            ),
        )

    def _repr_html_(self) -> str:
        """The verdicts as a table, for a notebook."""
        counts = ", ".join(f"{count} {outcome}" for outcome, count in self.counts.items())
        return html_table(
            f"{self.title}: {counts}",
            ("Rule", "RFC 7469", "Asked for", "Outcome", "Why"),
            ((each.rule.id, each.rule.section, each.rule.level, each.outcome, each.why) for each in self.verdicts),
        )
