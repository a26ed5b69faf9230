"""Tokens of programs that use the API, and the record of who did what."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from .values import MOST_DAYS

__all__ = ["TOKEN_PREFIX", "APIToken", "AuditEntry", "new_api_token"]

# People, secret scanners and the collector itself recognise a token by it.
TOKEN_PREFIX = "dynpin_"  # noqa: S105 - every token begins so

_SITE = re.compile(r"site:[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")


@dataclass(frozen=True, slots=True)
class APIToken:
    """A token that lets a program read or decide. The storage has only its hash.

    Attributes:
        name: what it is for; each name is unique.
        digest: the SHA-256 of the token, hexadecimal.
        scopes: what it may do: ``read`` (read everything), ``triage`` (change the state of groups), ``site:HOST``
            (read about this host and its subdomains).
        created_at: seconds since the epoch, UTC.
        expires_at: when it expires.
        used_at: when it was last used, to the minute; None if it was never used.
        revoked_at: when it was revoked, or None.
    """

    name: str
    digest: str
    scopes: tuple[str, ...]
    created_at: float
    expires_at: float
    used_at: float | None = None
    revoked_at: float | None = None

    def ended(self, now: float) -> str:
        """Why the token is no longer valid; an empty text if it is valid."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if now >= self.expires_at else ""


class AuditEntry(NamedTuple):
    """An action of a person or a program, or an attempt.

    Attributes:
        at: seconds since the epoch, UTC.
        who: the name they gave; nobody has checked it if all people share one password.
        source: the address they came from.
        action: a stable name: ``muted``, ``resolved``, ``open``, ``sign-in``, ``sign-in-failed``, ``clock-jumped``.
        subject: the group, or whatever else the action was about.
    """

    at: float
    who: str
    source: str
    action: str
    subject: str = ""


def new_api_token(name: str, scopes: Iterable[str], now: float, days: float) -> tuple[str, APIToken]:
    """Make a token for a program. The first value is its text, which is never stored; the second is what is stored.

    Raises:
        ValueError: if a text is not a scope, or there is none; or if the token would never expire, or has.
    """
    if not 0 < days <= MOST_DAYS:
        raise ValueError(f"a token cannot be valid for {days:g} days; name at most {MOST_DAYS}")
    wanted = tuple(dict.fromkeys(scopes))
    for scope in wanted or ("",):
        if scope not in ("read", "triage") and not _SITE.fullmatch(scope):
            raise ValueError(
                f"{scope!r} is not a scope: they are read, triage and site:HOST, such as site:shop.example.com"
            )
    text = f"{TOKEN_PREFIX}{secrets.token_urlsafe(32)}"
    return text, APIToken(name, hashlib.sha256(text.encode()).hexdigest(), wanted, now, now + days * 86_400)
