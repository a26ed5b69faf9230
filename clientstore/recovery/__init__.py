"""Signed lists of pins: fetched, and verified by The Update Framework's own client. Nothing is stored here."""

from .fetching import FolderFetcher, HTTPFetcher
from .verifying import Verified, verify

__all__ = ["FolderFetcher", "HTTPFetcher", "Verified", "verify"]
