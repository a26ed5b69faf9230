"""httpx: clients that note and enforce, synchronous and asynchronous, over HTTP/1.1 and HTTP/2."""

from __future__ import annotations

from typing import Any

import httpx

from .enforcement import request_site
from .transports import PinnedClientBase, note_response, tell_site

__all__ = ["PinnedAsyncClient", "PinnedClient"]


class PinnedClient(PinnedClientBase, httpx.Client):
    """An :class:`httpx.Client` that notes what responses pin and refuses, before a byte is sent, any other key.

    A refusal is an :class:`httpx.ConnectError`; :func:`dynpin.clientstore.pin_violation` finds the
    :class:`~dynpin.PinValidationError` in it.

    Args:
        store: the Known Pinned Hosts; None for the user's own store.
        verify: as httpx has it: True for its default roots, or an ``ssl.SSLContext`` of your own, which is hardened.
            With False, Known Pinned Hosts are refused and nothing is noted.
        cert: as httpx has it.
        trust_env: as httpx has it.
        private_roots: see :func:`dynpin.clientstore.enforce`, as for the three below.
        public_roots: the public roots of ``private_roots="bypass"``, DER.
        on_violation: called with each error before it is raised.
        reporter: what becomes of violation reports.
        event_hooks: as httpx has it; your hooks run besides the two that are needed here.
        options: everything else that :class:`httpx.Client` takes, but ``transport`` and ``mounts``. The TLS of
            an https proxy, by ``proxy`` or the environment, is held against the pins of the proxy's own name.

    Raises:
        UnenforceableContext: with ``transport`` or ``mounts``, which would connect without this client's context.
    """

    pin_library = httpx

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:  # noqa: ANN401 - httpx's own
        """As :meth:`httpx.Client.send`; a report of what fails on the way carries the request's port."""
        token = request_site.set(None)
        try:
            return super().send(request, **options)
        finally:
            request_site.reset(token)

    def _pin_tell_site(self, request: httpx.Request) -> None:
        tell_site(request)

    def _pin_note(self, response: httpx.Response) -> None:
        note_response(self.pin_store, response)


class PinnedAsyncClient(PinnedClientBase, httpx.AsyncClient):
    """An :class:`httpx.AsyncClient` that notes and enforces; everything is as in :class:`PinnedClient`."""

    pin_library = httpx

    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:  # noqa: ANN401 - httpx's own
        """As :meth:`httpx.AsyncClient.send`; a report of what fails on the way carries the request's port."""
        token = request_site.set(None)
        try:
            return await super().send(request, **options)
        finally:
            request_site.reset(token)

    async def _pin_tell_site(self, request: httpx.Request) -> None:
        tell_site(request)

    async def _pin_note(self, response: httpx.Response) -> None:
        note_response(self.pin_store, response)
