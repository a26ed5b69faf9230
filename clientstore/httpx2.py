"""httpx2: clients that note and enforce, synchronous and asynchronous, over HTTP/1.1 and HTTP/2."""

from __future__ import annotations

from typing import Any

import httpx2

from .enforcement import request_site
from .transports import PinnedClientBase, note_response, tell_site

__all__ = ["PinnedAsyncClient", "PinnedClient"]


class PinnedClient(PinnedClientBase, httpx2.Client):
    """An :class:`httpx2.Client` that notes what responses pin and refuses, before a byte is sent, any other key.

    A refusal is an :class:`httpx2.ConnectError`; :func:`dynpin.clientstore.pin_violation` finds the
    :class:`~dynpin.PinValidationError` in it.

    Args:
        store: the Known Pinned Hosts; None for the user's own store.
        verify: as httpx2 has it: True for its default roots, or an ``ssl.SSLContext`` of your own, which is hardened.
            With False, Known Pinned Hosts are refused and nothing is noted.
        cert: as httpx2 has it.
        trust_env: as httpx2 has it.
        private_roots: see :func:`dynpin.clientstore.enforce`, as for the three below.
        public_roots: the public roots of ``private_roots="bypass"``, DER.
        on_violation: called with each error before it is raised.
        reporter: what becomes of violation reports.
        event_hooks: as httpx2 has it; your hooks run besides the two that are needed here.
        options: everything else that :class:`httpx2.Client` takes, but ``transport`` and ``mounts``. The TLS of
            an https proxy, by ``proxy`` or the environment, is held against the pins of the proxy's own name.

    Raises:
        UnenforceableContext: with ``transport`` or ``mounts``, which would connect without this client's context.
    """

    pin_library = httpx2

    def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:  # noqa: ANN401 - httpx2's own
        """As :meth:`httpx2.Client.send`; a report of what fails on the way carries the request's port."""
        token = request_site.set(None)
        try:
            return super().send(request, **options)
        finally:
            request_site.reset(token)

    def _pin_tell_site(self, request: httpx2.Request) -> None:
        tell_site(request)

    def _pin_note(self, response: httpx2.Response) -> None:
        note_response(self.pin_store, response)


class PinnedAsyncClient(PinnedClientBase, httpx2.AsyncClient):
    """An :class:`httpx2.AsyncClient` that notes and enforces; everything is as in :class:`PinnedClient`."""

    pin_library = httpx2

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:  # noqa: ANN401 - httpx2's own
        """As :meth:`httpx2.AsyncClient.send`; a report of what fails on the way carries the request's port."""
        token = request_site.set(None)
        try:
            return await super().send(request, **options)
        finally:
            request_site.reset(token)

    async def _pin_tell_site(self, request: httpx2.Request) -> None:
        tell_site(request)

    async def _pin_note(self, response: httpx2.Response) -> None:
        note_response(self.pin_store, response)
