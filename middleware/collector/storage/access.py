"""Who may read besides people with the password, and who did what."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["TOKEN_PREFIX", "APIToken", "AuditEntry", "new_api_token"]

# It lets people, scanners of repositories and the collector itself tell what it is.
TOKEN_PREFIX = "dynpin_"  # noqa: S105 - every token begins so

_SITE = re.compile(r"site:[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")


@dataclass(frozen=True, slots=True)
class APIToken:
    """A token with which a program reads or decides; the storage knows its hash alone.

    Attributes:
        name: what it is for; no two have one name.
        digest: the SHA-256 of the token, hexadecimal.
        scopes: what it may do: ``read`` everything, ``triage`` (change the state of groups), ``site:HOST`` (read what
            is about this host and its subdomains).
        created_at: seconds since the epoch, UTC.
        expires_at: when it ends.
        used_at: when it was used last, to the minute; None where it never was.
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
        """Why it may be used no more; empty where it may."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if now >= self.expires_at else ""


class AuditEntry(NamedTuple):
    """Something that a person or a program did, or tried.

    Attributes:
        at: seconds since the epoch, UTC.
        who: the name they gave; nobody has checked it where there is one password for all.
        source: where from.
        action: a stable name: ``muted``, ``resolved``, ``open``, ``sign-in``, ``sign-in-failed``, ``clear-text-token``.
        subject: the group, or what else it was done to.
    """

    at: float
    who: str
    source: str
    action: str
    subject: str = ""


def new_api_token(name: str, scopes: Iterable[str], now: float, days: float) -> tuple[str, APIToken]:
    """A token for a program: its text, which nothing keeps, and what the storage keeps of it.

    Raises:
        ValueError: for what is not a scope, or for none.
    """
    wanted = tuple(dict.fromkeys(scopes))
    for scope in wanted or ("",):
        if scope not in ("read", "triage") and not _SITE.fullmatch(scope):
            raise ValueError(
                f"{scope!r} is not a scope: they are read, triage and site:HOST, such as site:shop.example.com"
            )
    text = f"{TOKEN_PREFIX}{secrets.token_urlsafe(32)}"
    return text, APIToken(name, hashlib.sha256(text.encode()).hexdigest(), wanted, now, now + days * 86_400)
