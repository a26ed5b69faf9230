"""The faults of one header field, from its text and its circumstances."""

from __future__ import annotations

from dynpin.header import ENFORCE_NAME, REPORT_ONLY_NAME

from .circumstances import Circumstances
from .deployment_faults import deployment_findings
from .faults import SEVERITIES, Finding
from .header_text import read
from .policy_faults import policy_findings

__all__ = ["field_name", "lint"]


def lint(
    value: str | None, *, name: str = ENFORCE_NAME, circumstances: Circumstances | None = None
) -> tuple[Finding, ...]:
    """The faults of one header field, worst first, then in the order of the text.

    Args:
        value: the field value; None if only the circumstances (paths, nodes) say what is sent.
        name: the name of the header field, in any case.
        circumstances: known facts about the deployment; without them fewer faults can be found.

    Raises:
        ValueError: for a name that is neither Public-Key-Pins nor Public-Key-Pins-Report-Only.
    """
    known = circumstances or Circumstances()
    report_only = field_name(name) == REPORT_ONLY_NAME
    text = value
    if not text and (known.paths or known.nodes):
        sent = [*known.paths.values(), *known.nodes]
        text = next((each for each in sent if each), None)
    findings: list[Finding] = []
    reading = None
    if text is not None:
        reading = read(text, report_only=report_only)
        findings += reading.findings
        findings += policy_findings(reading, known)
    findings += deployment_findings(reading, known, report_only=report_only)
    unique = dict.fromkeys(findings)
    order = SEVERITIES.index
    return tuple(sorted(unique, key=lambda found: (-order(found.severity), found.span or (0, 0))))


def field_name(name: str) -> str:
    """The name of the header field as in the RFC.

    Raises:
        ValueError: if it is another field.
    """
    for known in (ENFORCE_NAME, REPORT_ONLY_NAME):
        if name.strip().lower() == known.lower():
            return known
    raise ValueError(f"{name!r} is neither {ENFORCE_NAME} nor {REPORT_ONLY_NAME}")
