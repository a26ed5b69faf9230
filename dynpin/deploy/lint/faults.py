"""The catalogue of faults, and a finding of one in a header."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal, cast

__all__ = ["SEVERITIES", "Fault", "Finding", "Severity", "catalogue", "finding", "shown"]

Severity = Literal["info", "warning", "error", "critical"]
# From harmless to harmful.
SEVERITIES: tuple[Severity, ...] = ("info", "warning", "error", "critical")


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of fault, as faults.toml describes it; that file explains the members."""

    name: str
    category: str
    severity: Severity
    section: str
    message: str
    effect: str
    fix: str
    example: str | None
    field: str
    context: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault in one header.

    Attributes:
        fault: the stable name of the fault.
        severity: the severity here, which may be lower than in the catalogue.
        message: what is wrong, in words.
        effect: what clients do.
        fix: what to do instead.
        section: the section of RFC 7469 behind it.
        span: the part of the value with the fault, as (start, end); None if the fault is in the deployment.
    """

    fault: str
    severity: Severity
    message: str
    effect: str
    fix: str
    section: str
    span: tuple[int, int] | None = None

    def to_dict(self) -> dict[str, object]:
        """The finding as JSON."""
        return {
            "fault": self.fault,
            "severity": self.severity,
            "message": self.message,
            "effect": self.effect,
            "fix": self.fix,
            "section": self.section,
            "span": None if self.span is None else list(self.span),
        }


@cache
def catalogue() -> Mapping[str, Fault]:
    """All faults by name, in the order of faults.toml."""
    text = resources.files("dynpin.deploy.lint").joinpath("faults.toml").read_text(encoding="utf-8")
    return {
        name: Fault(
            name=name,
            category=str(entry["category"]),
            severity=cast("Severity", entry["severity"]),  # a test holds the file to SEVERITIES
            section=str(entry["section"]),
            message=str(entry["message"]),
            effect=str(entry["effect"]),
            fix=str(entry["fix"]),
            example=cast("str | None", entry.get("example")),
            field=str(entry.get("name", "Public-Key-Pins")),
            context=cast("Mapping[str, object]", entry.get("context", {})),
        )
        for name, entry in cast("dict[str, dict[str, object]]", tomllib.loads(text)).items()
    }


def finding(
    fault: str, span: tuple[int, int] | None = None, severity: Severity | None = None, /, **details: str
) -> Finding:
    """The finding of `fault`, with `details` filled into its messages."""
    entry = catalogue()[fault]
    return Finding(
        fault=fault,
        severity=severity or entry.severity,
        message=entry.message.format_map(details),
        effect=entry.effect,
        fix=entry.fix.format_map(details),
        section=entry.section,
        span=span,
    )


def shown(text: str) -> str:
    """A part of a header for messages: in quotes, short, printable."""
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
