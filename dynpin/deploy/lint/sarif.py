"""Findings as SARIF 2.1.0: code hosts and CI systems show them beside their line."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from dynpin._version import __version__

from .faults import Finding, Severity, catalogue
from .sources import HeaderField

__all__ = ["sarif"]

_LEVELS: dict[Severity, str] = {"info": "note", "warning": "warning", "error": "error", "critical": "error"}


def sarif(results: Sequence[tuple[HeaderField, Finding]]) -> dict[str, object]:
    """One SARIF log with a run of the linter: the faults are rules, and the findings are results."""
    names = list(dict.fromkeys(found.fault for _, found in results))
    return {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {"name": "dynpin", "version": __version__, "rules": [_rule(name) for name in names]}
                },
                "columnKind": "unicodeCodePoints",
                "results": [_result(each, found, names.index(found.fault)) for each, found in results],
            }
        ],
    }


def _rule(name: str) -> dict[str, object]:
    fault = catalogue()[name]
    return {
        "id": name,
        "shortDescription": {"text": name},
        "fullDescription": {"text": fault.effect},
        "helpUri": f"https://www.rfc-editor.org/rfc/rfc7469#section-{fault.section}",
        "defaultConfiguration": {"level": _LEVELS[fault.severity]},
        "properties": {"category": fault.category, "severity": fault.severity, "section": fault.section},
    }


def _result(each: HeaderField, found: Finding, index: int) -> dict[str, object]:
    region: dict[str, object] = {"startLine": 1}
    if found.span is not None and each.value is not None:
        start, end = found.span
        # Columns count from 1, and the end is the next column.
        region |= {"startColumn": start + 1, "endColumn": end + 1, "snippet": {"text": each.value[start:end]}}
    return {
        "ruleId": found.fault,
        "ruleIndex": index,
        "level": _LEVELS[found.severity],
        "message": {"text": f"{found.message} {found.fix}"},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": quote(each.source, safe="/:?&=#%@[]")},
                    "region": region,
                },
                "logicalLocations": [{"name": each.name, "kind": "member"}],
            }
        ],
        "properties": {"severity": found.severity, "section": found.section, "effect": found.effect},
    }
