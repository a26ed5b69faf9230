"""The commonest reason why no header is sent: a proxy ends TLS, and the application sees plain http."""

from __future__ import annotations

import logging

__all__ = ["BehindProxy"]

logger = logging.getLogger("dynpin.middleware")


class BehindProxy:
    """Tells once that requests came by https and are taken for plain http, so that no header is sent (§2.2.2)."""

    def __init__(self) -> None:
        self._told = False

    def see(self, forwarded: str, fix: str) -> None:
        """Look at a request that the application takes for plain http.

        Args:
            forwarded: its X-Forwarded-Proto or Forwarded field, or an empty text.
            fix: what to do about it with this kind of server.
        """
        if self._told or "https" not in forwarded.lower():
            return
        self._told = True
        logger.warning(
            "No Public-Key-Pins header is sent: a proxy says that clients come by https, and the server takes their "
            "requests for plain http. %s",
            fix,
        )
