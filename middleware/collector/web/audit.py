"""What people and programs did, in words and as JSON."""

from __future__ import annotations

from dynpin.report import rfc3339

from ..storage import AuditEntry

__all__ = ["ACTIONS", "audit_object"]

ACTIONS = {
    "muted": "muted a group",
    "resolved": "resolved a group",
    "open": "reopened a group",
    "sign-in": "signed in",
    "sign-in-failed": "wrong password",
    "site-state": "changed what a site's nodes share",
    "clear-text-token": "token refused: sent over http",
}


def audit_object(entry: AuditEntry) -> dict[str, object]:
    """An entry as JSON."""
    return {
        "at": rfc3339(entry.at),
        "who": entry.who,
        "source": entry.source or None,
        "action": entry.action,
        "subject": entry.subject or None,
    }
