"""Names of actions, for the pages."""

from __future__ import annotations

from ..worker import ACTIONS as OF_CHANNELS

__all__ = ["ACTIONS"]

ACTIONS = {
    "muted": "muted a group",
    "resolved": "resolved a group",
    "open": "reopened a group",
    "sign-in": "signed in",
    "sign-in-failed": "wrong password",
    "site-state": "changed the shared state of a site",
    "clear-text-token": "token refused: sent over http",
    "clock-jumped": "kept old reports, since the clock jumped ahead",
    "clock-stands": "deletes old reports again, since the clock stands",
    **OF_CHANNELS,
}
