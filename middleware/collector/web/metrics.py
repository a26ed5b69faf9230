"""Metrics for Prometheus."""

from __future__ import annotations

from ..service import Service
from ..storage import Filter

__all__ = ["exposition"]


def exposition(service: Service) -> str:
    """The text format, version 0.0.4: the intake's answers since the storage was made, and the number of groups."""
    lines = [
        "# HELP dynpin_collector_reports_total Answers of the intake, by outcome and reason.",
        "# TYPE dynpin_collector_reports_total counter",
    ]
    lines += [
        f'dynpin_collector_reports_total{{outcome="{outcome}",reason="{reason}"}} {number}'
        for outcome, reason, number in sorted(service.storage.outcomes(0))
    ]
    for column in ("verdict", "state"):
        lines += [
            f"# HELP dynpin_collector_groups_by_{column} Groups of reports by {column}.",
            f"# TYPE dynpin_collector_groups_by_{column} gauge",
        ]
        lines += [
            f'dynpin_collector_groups_by_{column}{{{column}="{value or "none"}"}} {groups}'
            for value, groups, _ in sorted(service.storage.tally(Filter(), column, 50))
        ]
    return "\n".join(lines) + "\n"
