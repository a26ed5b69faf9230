"""A study with its results under each policy, as a notebook shows them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from dynpin.counts import counted
from dynpin.deploy.tables import csv_table, html_table
from dynpin.lab.simulation.paper import Format
from dynpin.lab.simulation.run import Outcome, simulate
from dynpin.lab.simulation.study import Study

__all__ = ["Comparison"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Policies side by side.

    Attributes:
        study: the study.
        outcomes: its results, one for each policy.
    """

    study: Study
    outcomes: tuple[Outcome, ...]

    @classmethod
    def of(cls, study: Study, *, processes: int | None = None) -> Self:
        """Play a study. `processes` is the most at a time; None for the number of processors."""
        return cls(study, simulate(study, processes=processes))

    def picture(self, form: Format = "svg", *, dark: bool = False) -> bytes:
        """The curves as a file, as `dynpin simulate --plot` draws them."""
        from dynpin.lab.simulation.curves import draw  # noqa: PLC0415 - matplotlib takes a while

        return draw(self.study, self.outcomes, form, dark=dark)

    def to_csv(self) -> str:
        """For each policy and day, the shares of clients that are locked out and fooled, as CSV."""
        return csv_table(
            ("policy", "day", "locked_out", "fooled"),
            (
                (outcome.policy.name, float(day), float(locked_out), float(fooled))
                for outcome in self.outcomes
                for day, locked_out, fooled in zip(outcome.days, outcome.locked_out, outcome.fooled, strict=True)
                if day.is_integer()
            ),
        )

    def _repr_svg_(self) -> str:
        """The curves, for a notebook."""
        return self.picture().decode()

    def _repr_html_(self) -> str:
        """The curves and a table of the totals, each with its 95 % interval, for a notebook."""
        caption = f"{counted(self.study.clients, 'client')} ({self.study.population.name}), {self.study.days:g} days"
        head = ("Policy", "Locked out at most", "Client-days", "Fooled at most", "Client-days", "Turned away")
        # The lines before the element belong to a file of its own.
        drawn = "<svg" + self._repr_svg_().partition("<svg")[2]
        return drawn + html_table(caption, head, self._rows())

    def _rows(self) -> Iterator[tuple[str, ...]]:
        for outcome in self.outcomes:
            yield (
                self.study.label(outcome.policy),
                _share(float(outcome.locked_out.max()), outcome.interval_at_most("locked_out")),
                f"{outcome.locked_out_days:,.0f} ± {outcome.half_width('locked_out'):,.0f}",
                _share(float(outcome.fooled.max()), outcome.interval_at_most("fooled")),
                f"{outcome.fooled_days:,.0f} ± {outcome.half_width('fooled'):,.0f}",
                _share(outcome.turned_away, outcome.interval_turned_away),
            )


def _share(share: float, interval: tuple[float, float]) -> str:
    low, high = interval
    return f"{share:.2%} ({low:.2%} to {high:.2%})"
