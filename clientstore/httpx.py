"""httpx: clients that note and enforce, synchronous and asynchronous, over HTTP/1.1 and HTTP/2."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from typing import Any

import httpx

from dynpin.clientstore.enforcement import Peer, PrivateRoots, Reporter, request_port
from dynpin.clientstore.reporting import ReportMode
from dynpin.clientstore.responses import take_in
from dynpin.clientstore.store import PinStore
from dynpin.clientstore.tls import enforce, peer_of
from dynpin.errors import PinValidationError, UnenforceableContext
from dynpin.header import ENFORCE_NAME, REPORT_ONLY_NAME

__all__ = ["PinnedAsyncClient", "PinnedClient"]

_HTTPS_PORT = 443
_Hooks = Mapping[str, list[Callable[..., Any]]]


class PinnedClient(httpx.Client):
    """An :class:`httpx.Client` that notes what responses pin and refuses, before a byte is sent, any other key.

    A refusal is an :class:`httpx.ConnectError`; :func:`dynpin.clientstore.pin_violation` finds the
    :class:`~dynpin.PinValidationError` in it.

    Args:
        store: the Known Pinned Hosts; None for the user's own store.
        verify: as httpx has it: True for its default roots, or an ``ssl.SSLContext`` of your own, which is hardened.
        cert: as httpx has it.
        private_roots: see :func:`dynpin.clientstore.enforce`, as for `on_violation` and `reporter`.
        on_violation: called with each error before it is raised.
        reporter: what becomes of violation reports.
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
        event_hooks: _Hooks | None = None,
        **options: Any,  # noqa: ANN401 - httpx's own
    ) -> None:
        _refuse_transports(options)
        self.pin_store = PinStore() if store is None else store
        context = enforce(
            httpx.create_ssl_context(verify, cert, trust_env),
            self.pin_store,
            private_roots=private_roots,
            on_violation=on_violation,
            reporter=reporter,
        )
        hooks = _with_hooks(event_hooks, _tell_port, self._note)
        super().__init__(verify=context, trust_env=trust_env, event_hooks=hooks, **options)

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:  # noqa: ANN401 - httpx's own
        """As :meth:`httpx.Client.send`; a report of what fails on the way carries the request's port."""
        token = request_port.set(None)
        try:
            return super().send(request, **options)
        finally:
            request_port.reset(token)

    def _note(self, response: httpx.Response) -> None:
        _take_in(self.pin_store, response)


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
        event_hooks: _Hooks | None = None,
        **options: Any,  # noqa: ANN401 - httpx's own
    ) -> None:
        _refuse_transports(options)
        self.pin_store = PinStore() if store is None else store
        context = enforce(
            httpx.create_ssl_context(verify, cert, trust_env),
            self.pin_store,
            private_roots=private_roots,
            on_violation=on_violation,
            reporter=reporter,
        )
        hooks = _with_hooks(event_hooks, self._tell_port, self._note)
        super().__init__(verify=context, trust_env=trust_env, event_hooks=hooks, **options)

    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:  # noqa: ANN401 - httpx's own
        """As :meth:`httpx.AsyncClient.send`; a report of what fails on the way carries the request's port."""
        token = request_port.set(None)
        try:
            return await super().send(request, **options)
        finally:
            request_port.reset(token)

    @staticmethod
    async def _tell_port(request: httpx.Request) -> None:
        _tell_port(request)

    async def _note(self, response: httpx.Response) -> None:
        _take_in(self.pin_store, response)


def _refuse_transports(options: Mapping[str, object]) -> None:
    for name in ("transport", "mounts"):
        if options.get(name) is not None:
            raise UnenforceableContext(
                f"{name}= connects by a context of its own, past the pins; build an httpx.Client with "
                f"{name}= yourself, and give its HTTPTransport verify=dynpin.clientstore.enforce(context, store)"
            )


def _with_hooks(given: _Hooks | None, on_request: Callable[..., Any], on_response: Callable[..., Any]) -> _Hooks:
    hooks = dict(given or {})
    return {
        **hooks,
        "request": [*hooks.get("request", ()), on_request],
        # Before the user's own hooks: one that raises for a status must not keep the pins from being noted.
        "response": [on_response, *hooks.get("response", ())],
    }


def _tell_port(request: httpx.Request) -> None:
    request_port.set(request.url.port or _HTTPS_PORT)


def _take_in(store: PinStore, response: httpx.Response) -> None:
    url = response.request.url
    if url.scheme != "https":
        return
    take_in(
        store,
        url.host,
        _peer(response),
        # The list: headers["…"] would join several fields by a comma.
        response.headers.get_list(ENFORCE_NAME),
        response.headers.get_list(REPORT_ONLY_NAME),
        port=url.port or _HTTPS_PORT,
    )


def _peer(response: httpx.Response) -> Peer | None:
    stream = response.extensions.get("network_stream")
    if stream is None:
        return None
    # Asynchronous streams, and TLS inside TLS, give the SSLObject; over a plain socket "ssl_object" is what stands
    # inside the SSLSocket, and "socket" is the SSLSocket itself.
    return peer_of(stream.get_extra_info("ssl_object")) or peer_of(stream.get_extra_info("socket"))
