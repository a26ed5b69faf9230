"""Fetch signed lists of pins, and verify them with The Update Framework's own client or with their one key.

This subpackage stores nothing.
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
