"""The linter: every known fault of a pinning header, by name, with its fix."""

from __future__ import annotations

from .circumstances import Circumstances, Observed
from .faults import SEVERITIES, Fault, Finding, Severity, catalogue
from .linter import field_name, lint
from .scan import CLASSES, MAX_LINE, Figure, Scan
from .sources import HeaderField, fields_of_har, fields_of_lines, fields_of_response

__all__ = [
    "CLASSES",
    "MAX_LINE",
    "SEVERITIES",
    "Circumstances",
    "Fault",
    "Figure",
    "Finding",
    "HeaderField",
    "Observed",
    "Scan",
    "Severity",
    "catalogue",
    "field_name",
    "fields_of_har",
    "fields_of_lines",
    "fields_of_response",
    "lint",
]
