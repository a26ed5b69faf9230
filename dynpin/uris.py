"""The URIs that a header may have (RFC 3986)."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

__all__ = ["is_http_uri"]

# RFC 3986 §2: the characters of a URI; all others must be percent-encoded.
_URI = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+")


def is_http_uri(uri: str) -> bool:
    """Whether a text is an absolute http or https URI with a host (RFC 3986 §4.3)."""
    try:
        parts = urlsplit(uri)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False
    return valid and _URI.fullmatch(uri) is not None
