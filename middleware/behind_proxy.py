"""Warn of the most common reason for a missing header: a proxy ends TLS, and the application sees plain http."""

from __future__ import annotations

import logging

__all__ = ["BehindProxy"]

logger = logging.getLogger("dynpin.middleware")


class BehindProxy:
    """Logs once that clients use https but the server sees plain http, so that no header is sent (§2.2.2)."""

    def __init__(self) -> None:
        self._has_warned = False

    def see(self, forwarded: str, fix: str) -> None:
        """Check a request that the server sees as plain http.

        Args:
            forwarded: its X-Forwarded-Proto or Forwarded field, or an empty text.
            fix: how to fix it with this kind of server.
        """
        if self._has_warned or "https" not in forwarded.lower():
            return
        self._has_warned = True
        logger.warning(
            "No Public-Key-Pins header is sent: a proxy says that clients use https, but the server sees plain "
            "http. %s",
            fix,
        )
