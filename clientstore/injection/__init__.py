"""Pins for a program without a change to its code: every client connection of Python's ``ssl`` is enforced.

:func:`inject` does it from inside a program; `dynpin run` does it from outside, with environment variables alone. This
subpackage imports little before the first connection, since every Python that `dynpin run` starts imports it.
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
    """Enforce pins on every client connection that Python's ``ssl`` makes in this process, with any library.

    This applies to all contexts, existing and new, of any class (truststore's too). It does not apply to connections
    that already exist, to server connections (``server_side``), or to TLS outside Python's ``ssl``: curl, pyOpenSSL and
    programs in other languages. Libraries on top of :mod:`http.client` (urllib, urllib3, requests, botocore, pip) also
    note pins from final https responses, from the next request on. For all others (httpx, aiohttp, websockets, asyncio)
    pins are enforced but not noted. Call it first in the program; it cannot be undone. If it is called again with
    another store or other options, both apply.

    A refusal raises :class:`~dynpin.PinValidationError` out of the handshake. If the pins of a connection cannot be
    checked (those of gevent and eventlet, for example), it raises :class:`~dynpin.UnenforceableContext` before the
    handshake.

    Args:
        store: the Known Pinned Hosts; None for the user's own store.
        options: see :class:`~dynpin.clientstore.PinOptions`. Violation reports trust the roots of the system.

    Raises:
        StoreError: if the store cannot be opened.
        TypeError: for an option that does not exist.
        UnenforceableContext: if pins cannot be enforced on this Python's own ``ssl``.
    """
    add_rule(Rule.of(store, options))
    hook_ssl()
    hook_http_client()
