"""The violation report: strict when it is built, lenient when it is read (RFC 7469 §3)."""

from .building import (
    RECOVERY_STATES,
    RecoveryState,
    Report,
    ReportedRecovery,
    build_report,
    certificate_pin,
    grouping_key,
)
from .reading import load_json, parse_report, read_report, unwrap
from .times import FIRST_SECOND, LAST_SECOND, read_time, rfc3339

__all__ = [
    "FIRST_SECOND",
    "LAST_SECOND",
    "RECOVERY_STATES",
    "RecoveryState",
    "Report",
    "ReportedRecovery",
    "build_report",
    "certificate_pin",
    "grouping_key",
    "load_json",
    "parse_report",
    "read_report",
    "read_time",
    "rfc3339",
    "unwrap",
]
