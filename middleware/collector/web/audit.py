"""What people and programs did, in words."""

from __future__ import annotations

__all__ = ["ACTIONS"]

ACTIONS = {
    "muted": "muted a group",
    "resolved": "resolved a group",
    "open": "reopened a group",
    "sign-in": "signed in",
    "sign-in-failed": "wrong password",
    "clear-text-token": "token refused: sent over http",
}
