"""Which field of a response counts, and whether its header must be written to the disk (RFC 7469 §2.3.1, §2.5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import lru_cache
from operator import attrgetter

from dynpin.errors import InvalidHeader
from dynpin.header import PublicKeyPins
from dynpin.hosts import KnownPinnedHost

__all__ = ["first_header", "worth_writing"]

# If only the expiry moves, it is written when it moves by more than this share of max-age.
_WORTH_WRITING = 0.01
# All fields of an entry except its two times. Each response waits for this comparison; a changed copy takes longer.
_without_times: Callable[[KnownPinnedHost], object] = attrgetter(
    *[field.name for field in fields(KnownPinnedHost) if field.name not in ("noted_at", "expires_at")]
)


def first_header(value: str | Sequence[str]) -> PublicKeyPins | InvalidHeader | None:
    """The first of the fields, parsed, or its error. The others are not processed (RFC 7469 §2.3.1)."""
    first = value if isinstance(value, str) else next(iter(value), None)
    return None if first is None else _parsed(first)


# A site sends the same text with each response.
@lru_cache(maxsize=256)
def _parsed(value: str) -> PublicKeyPins | InvalidHeader:
    try:
        return PublicKeyPins.parse(value)
    except InvalidHeader as error:
        return error.with_traceback(None)


def worth_writing(known: KnownPinnedHost | None, new: KnownPinnedHost | None) -> bool:
    """Whether the disk must change. A small move of the expiry alone is no reason.

    So a busy client does not write at every response, and the expiry on the disk is never later than the real one.
    """
    if known is None or new is None or known.expires_at is None or new.expires_at is None:
        return True
    if _without_times(known) != _without_times(new):
        return True
    moved = new.expires_at - known.expires_at
    return not 0 <= moved <= _WORTH_WRITING * (new.expires_at - new.noted_at)
