"""What the formats that must be read as one text hold at most, and the formats for more than that."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from dynpin.errors import InvalidPinFile
from dynpin.hosts import KnownPinnedHost

__all__ = ["MOST_ENTRIES", "bounded", "too_many", "whole_text"]

MOST_ENTRIES = 10_000
# Chromium's whole list, of which most is HSTS without pins, has some 20 million characters.
_LONGEST_TEXT = 64 * 1024 * 1024


def too_many(form: str) -> InvalidPinFile:
    """The error for a file, or a store, with more entries than `form` is for."""
    return InvalidPinFile(
        f"{form} is for up to {MOST_ENTRIES:,} entries, and here are more: "
        "use JSON lines (jsonl), CSV or wget2's pin file, which may have a million"
    )


def whole_text(lines: Iterable[str], form: str) -> str:
    """All of a file as one text.

    Raises:
        InvalidPinFile: if it is longer than any file with the most entries; the rest is not read.
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
        InvalidPinFile: if they are more than the most; the rest is not read.
    """
    kept = list(islice(entries, MOST_ENTRIES + 1))
    if len(kept) > MOST_ENTRIES:
        raise too_many(form)
    return kept
