"""The size limits of the formats that are read as one text, and which formats to use instead."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from dynpin.errors import InvalidPinFile
from dynpin.hosts import KnownPinnedHost

__all__ = ["MOST_ENTRIES", "bounded", "too_many", "whole_text"]

MOST_ENTRIES = 10_000
# Chromium's whole list has some 20 million characters. Most of it is HSTS without pins.
_LONGEST_TEXT = 64 * 1024 * 1024


def too_many(form: str) -> InvalidPinFile:
    """The error for a file, or a store, with more entries than `form` allows."""
    return InvalidPinFile(
        f"{form} takes up to {MOST_ENTRIES:,} entries, and there are more: "
        "use JSON lines (jsonl), CSV or wget2's pin file, which may have a million"
    )


def whole_text(lines: Iterable[str], form: str) -> str:
    """All of a file as one text.

    Raises:
        InvalidPinFile: if it is longer than any file with the maximum number of entries; the rest is not read.
    """
    read: list[str] = []
    length = 0
    for line in lines:
        length += len(line)
        if length > _LONGEST_TEXT:
            raise too_many(form)
        read.append(line)
    return "".join(read)


def bounded(entries: Iterable[KnownPinnedHost], form: str) -> list[KnownPinnedHost]:
    """The entries as a list.

    Raises:
        InvalidPinFile: if there are more than the maximum; the rest is not read.
    """
    kept = list(islice(entries, MOST_ENTRIES + 1))
    if len(kept) > MOST_ENTRIES:
        raise too_many(form)
    return kept
