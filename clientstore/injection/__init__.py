"""Pins for a program whose code is not changed: every client connection that Python's ``ssl`` makes is enforced.

:func:`inject` does it from inside of a program; `dynpin run` does it from outside, by the environment alone. This room
imports little before the first connection, since every Python that `dynpin run` starts imports it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

from .environment import begin, environment_for
from .http import hook_http_client
from .rules import Rule, add_rule, is_injected
from .tls import hook_ssl

if TYPE_CHECKING:
    from ..options import PinOptions
    from ..store import PinStore

__all__ = ["begin", "environment_for", "inject", "is_injected"]


def inject(store: PinStore | None = None, **options: Unpack[PinOptions]) -> None:
    """Enforce pins on every client connection that Python's ``ssl`` makes in this process, for whatever library.

    It holds for the contexts that exist and for those to come, of whatever class: truststore's too. Connections that
    were made before, those that accept (``server_side``), and TLS that is not Python's ``ssl`` are left alone: curl,
    pyOpenSSL and programs in other languages are not covered. What stands on :mod:`http.client` (urllib, urllib3,
    requests, botocore, pip) notes what final https responses pin too, from the next request on; all others (httpx,
    aiohttp, websockets, asyncio) are enforced alone. Call it first thing in the program; it cannot be undone. Called
    again with another store or other options, both hold.

    A refusal is a :class:`~dynpin.PinValidationError` out of the handshake. A connection that leaves no way to check
    pins raises :class:`~dynpin.UnenforceableContext` before its handshake (gevent's and eventlet's sockets, for one).

    Args:
        store: the Known Pinned Hosts; None for the user's own store.
        options: see :class:`~dynpin.clientstore.PinOptions`. Violation reports trust the roots of the system.

    Raises:
        StoreError: if the store cannot be opened.
        TypeError: for an option that does not exist.
        UnenforceableContext: if this Python's ``ssl`` itself is not the one that pins can be enforced on.
    """
    add_rule(Rule.of(store, options))
    hook_ssl()
    hook_http_client()
