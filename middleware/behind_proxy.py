"""Warn of the most common reason for a missing header: a proxy ends TLS, and the application sees plain http."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable

__all__ = ["FIELDS", "BehindProxy"]

logger = logging.getLogger("dynpin.middleware")

# The fields in which proxies say that a client uses https, in lower case, and the word that says so.
FIELDS = {
    "forwarded": "proto=https",  # RFC 7239 §5.4
    "x-forwarded-proto": "https",
    "x-forwarded-protocol": "https",
    "x-forwarded-scheme": "https",
    "x-url-scheme": "https",
    "cloudfront-forwarded-proto": "https",
    "x-forwarded-ssl": "on",
    "front-end-https": "on",
}


class BehindProxy:
    """Logs once that clients use https but the server sees plain http, so that no header is sent (§2.2.2)."""

    def __init__(self) -> None:
        self._has_warned = False

    def see(self, fields: Iterable[tuple[str, str]], fix: str) -> None:
        """Check a request that the server sees as plain http.

        Args:
            fields: the names and values of those of its fields that are in FIELDS.
            fix: how to fix it with this kind of server.
        """
        if self._has_warned or not any(FIELDS[name] in _words(value) for name, value in fields):
            return
        self._has_warned = True
        logger.warning(
            "No Public-Key-Pins header is sent: a proxy says that clients use https, but the server sees plain "
            "http. %s",
            fix,
        )


def _words(value: str) -> list[str]:
    return re.split(r'[\s",;]+', value.lower().replace('="', "="))
