"""Signed lists of pins: fetched, and verified, by The Update Framework's own client or by their one key.

Nothing is stored here.
"""

from .fetching import FolderFetcher, HTTPFetcher
from .ssl_pinning import read_signing_key, verify_ssl_pinning
from .verifying import LONGEST_FILE, Verified, verify

__all__ = [
    "LONGEST_FILE",
    "FolderFetcher",
    "HTTPFetcher",
    "Verified",
    "read_signing_key",
    "verify",
    "verify_ssl_pinning",
]
