"""httpx: clients that note and enforce, synchronous and asynchronous, over HTTP/1.1 and HTTP/2."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any

import httpx

from dynpin.clientstore.enforcement import PrivateRoots, Reporter, request_site
from dynpin.clientstore.hooks import Hooks, note_response, refuse_transports, tell_site, with_hooks
from dynpin.clientstore.reporting import ReportMode
from dynpin.clientstore.responses import own_store
from dynpin.clientstore.store import PinStore
from dynpin.clientstore.tls import enforce
from dynpin.errors import PinValidationError

__all__ = ["PinnedAsyncClient", "PinnedClient"]


class PinnedClient(httpx.Client):
    """An :class:`httpx.Client` that notes what responses pin and refuses, before a byte is sent, any other key.

    A refusal is an :class:`httpx.ConnectError`; :func:`dynpin.clientstore.pin_violation` finds the
    :class:`~dynpin.PinValidationError` in it.

    Args:
        store: the Known Pinned Hosts; None for the user's own store.
        verify: as httpx has it: True for its default roots, or an ``ssl.SSLContext`` of your own, which is hardened.
            With False, Known Pinned Hosts are refused and nothing is noted.
        cert: as httpx has it.
        trust_env: as httpx has it.
        private_roots: see :func:`dynpin.clientstore.enforce`, as for `on_violation` and `reporter`.
        on_violation: called with each error before it is raised.
        reporter: what becomes of violation reports.
        event_hooks: as httpx has it; your hooks run besides the two that are needed here.
        options: everything else that :class:`httpx.Client` takes, but ``transport`` and ``mounts``.

    Raises:
        UnenforceableContext: with ``transport`` or ``mounts``, which would connect without this client's context.
    """

    def __init__(
        self,
        store: PinStore | None = None,
        *,
        verify: ssl.SSLContext | str | bool = True,
        cert: Any = None,  # noqa: ANN401 - httpx's own kinds
        trust_env: bool = True,
        private_roots: PrivateRoots = "enforce",
        on_violation: Callable[[PinValidationError], None] | None = None,
        reporter: Reporter | ReportMode | None = "all",
        event_hooks: Hooks | None = None,
        **options: Any,  # noqa: ANN401 - httpx's own
    ) -> None:
        refuse_transports(options)
        self.pin_store = own_store(store, self)
        context = enforce(
            httpx.create_ssl_context(verify=verify, cert=cert, trust_env=trust_env),
            self.pin_store,
            private_roots=private_roots,
            on_violation=on_violation,
            reporter=reporter,
        )
        hooks = with_hooks(event_hooks, tell_site, self._note)
        super().__init__(verify=context, trust_env=trust_env, event_hooks=hooks, **options)

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:  # noqa: ANN401 - httpx's own
        """As :meth:`httpx.Client.send`; a report of what fails on the way carries the request's port."""
        token = request_site.set(None)
        try:
            return super().send(request, **options)
        finally:
            request_site.reset(token)

    def _note(self, response: httpx.Response) -> None:
        note_response(self.pin_store, response)


class PinnedAsyncClient(httpx.AsyncClient):
    """An :class:`httpx.AsyncClient` that notes and enforces; everything is as in :class:`PinnedClient`."""

    def __init__(
        self,
        store: PinStore | None = None,
        *,
        verify: ssl.SSLContext | str | bool = True,
        cert: Any = None,  # noqa: ANN401 - httpx's own kinds
        trust_env: bool = True,
        private_roots: PrivateRoots = "enforce",
        on_violation: Callable[[PinValidationError], None] | None = None,
        reporter: Reporter | ReportMode | None = "all",
        event_hooks: Hooks | None = None,
        **options: Any,  # noqa: ANN401 - httpx's own
    ) -> None:
        refuse_transports(options)
        self.pin_store = own_store(store, self)
        context = enforce(
            httpx.create_ssl_context(verify=verify, cert=cert, trust_env=trust_env),
            self.pin_store,
            private_roots=private_roots,
            on_violation=on_violation,
            reporter=reporter,
        )
        hooks = with_hooks(event_hooks, self._tell_site, self._note)
        super().__init__(verify=context, trust_env=trust_env, event_hooks=hooks, **options)

    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:  # noqa: ANN401 - httpx's own
        """As :meth:`httpx.AsyncClient.send`; a report of what fails on the way carries the request's port."""
        token = request_site.set(None)
        try:
            return await super().send(request, **options)
        finally:
            request_site.reset(token)

    @staticmethod
    async def _tell_site(request: httpx.Request) -> None:
        tell_site(request)

    async def _note(self, response: httpx.Response) -> None:
        note_response(self.pin_store, response)
