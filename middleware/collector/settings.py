"""What a collector is told, as ASGI app, as WSGI app and on the command line."""

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
    """The fields of :class:`ServiceSettings`, as keywords of those functions that make a collector."""

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
    """What a collector is told of what it takes, keeps and knows.

    Attributes:
        tokens: what may stand in a report-uri as long as this process runs, beside the tokens in the storage.
        limits: how much is taken.
        keys: the operator's own keys, pin to name: triage then tells them from others'.
        inventories: the keys of one policy each, by its token, in place of `keys`.
        roots: the operator's own root certificates, PEM: triage then tells their CA from an unknown one.
        retention: what is kept; looked after once an hour.
        alerts: whom to tell of new groups and sudden rises.
        source_address: how much of a client's address is kept, and counts as one source: ``whole``, ``/24`` or
            ``/24,/48``.
        trusted_proxies: the peers whose forwarded headers are believed: networks, addresses, and ``unix``.
        clock: seconds since the epoch, UTC.

    Raises:
        ValueError: for a token that cannot stand in a report-uri, a part of an address or a proxy that is none.
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
        """Refuse at once what could not work."""
        self.own_tokens()
        self.source_bits()
        self.proxies()

    def own_tokens(self) -> dict[str, Token]:
        """The tokens by what stands in the URL."""
        own = [token if isinstance(token, Token) else Token(token) for token in self.tokens]
        for token in own:
            if not is_token(token.token):
                raise ValueError(
                    f"the token {token.token!r} cannot stand in a report-uri: 1 to 128 letters, digits and . _ ~ -"
                )
        return {token.token: replace(token, created_at=token.created_at or self.clock()) for token in own}

    def source_bits(self) -> SourceAddress:
        """How many bits of an address are kept."""
        return SourceAddress.parse(self.source_address)

    def proxies(self) -> TrustedProxies:
        """Whom to believe about who asks."""
        return TrustedProxies(self.trusted_proxies)
