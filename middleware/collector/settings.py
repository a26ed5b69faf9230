"""The settings of a collector: the same for the ASGI app, the WSGI app and the command line."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypedDict

from dynpin.pins import Pin

from .intake import Limits, SourceAddress, is_token
from .proxies import TrustedProxies
from .storage import Retention, Token
from .worker import Alerts

__all__ = ["ServiceKeywords", "ServiceSettings"]


class ServiceKeywords(TypedDict, total=False):
    """The fields of :class:`ServiceSettings`, as keywords of the functions that make a collector."""

    tokens: Sequence[str | Token]
    limits: Limits
    keys: Mapping[Pin, str]
    inventories: Mapping[str, Mapping[Pin, str]]
    roots: bytes
    retention: Retention
    alerts: Alerts | None
    source_address: str
    trusted_proxies: Sequence[str]
    clock: Callable[[], float]


@dataclass(frozen=True, kw_only=True)
class ServiceSettings:
    """The settings of a collector.

    Attributes:
        tokens: tokens for report-uris, in addition to those in the storage; they hold while this process runs.
        limits: the limits of the intake.
        keys: the operator's own keys, pin to name, so that triage recognises them.
        inventories: the keys of single policies, by token; a policy with an inventory does not use `keys`.
        roots: the operator's own root certificates, PEM, so that triage recognises their CA.
        retention: how much is kept; reports beyond it are deleted once an hour.
        alerts: the alerts on new groups and sudden rises.
        source_address: how much of a client's address is stored, and counts as one source: ``whole``, ``/24`` or
            ``/24,/48``.
        trusted_proxies: the peers whose forwarded headers are trusted: networks, addresses, and ``unix``.
        clock: seconds since the epoch, UTC.

    Raises:
        ValueError: if a token cannot be a part of a report-uri, or `source_address` or a proxy cannot be read.
    """

    tokens: Sequence[str | Token] = ()
    limits: Limits = field(default_factory=Limits)
    keys: Mapping[Pin, str] = field(default_factory=dict[Pin, str])
    inventories: Mapping[str, Mapping[Pin, str]] = field(default_factory=dict[str, Mapping[Pin, str]])
    roots: bytes = b""
    retention: Retention = field(default_factory=Retention)
    alerts: Alerts | None = None
    source_address: str = "/24,/48"
    trusted_proxies: Sequence[str] = ()
    clock: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        """Raise at once if a setting cannot work."""
        self.own_tokens()
        self.source_bits()
        self.proxies()

    def own_tokens(self) -> dict[str, Token]:
        """The tokens, by their text in the URL."""
        own = [token if isinstance(token, Token) else Token(token) for token in self.tokens]
        for token in own:
            if not is_token(token.token):
                raise ValueError(
                    f"the token {token.token!r} cannot be in a report-uri; use 1 to 128 letters, digits and . _ ~ -"
                )
        return {token.token: replace(token, created_at=token.created_at or self.clock()) for token in own}

    def source_bits(self) -> SourceAddress:
        """How many bits of an address are stored."""
        return SourceAddress.parse(self.source_address)

    def proxies(self) -> TrustedProxies:
        """The trusted proxies."""
        return TrustedProxies(self.trusted_proxies)
