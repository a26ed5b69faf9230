"""The event hooks that httpx and httpx2 have in common: the two differ in their names alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from dynpin.clientstore.enforcement import Peer, request_site
from dynpin.clientstore.responses import take_in
from dynpin.clientstore.store import PinStore
from dynpin.clientstore.tls import peer_of
from dynpin.errors import UnenforceableContext
from dynpin.header import ENFORCE_NAME, REPORT_ONLY_NAME

__all__ = ["Hooks", "note_response", "refuse_transports", "tell_site", "with_hooks"]

_HTTPS_PORT = 443

Hooks = Mapping[str, list[Callable[..., Any]]]


class _URL(Protocol):
    @property
    def scheme(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int | None: ...


class _Request(Protocol):
    @property
    def url(self) -> _URL: ...


class _Headers(Protocol):
    def get_list(self, key: str) -> list[str]: ...


class _Response(Protocol):
    @property
    def request(self) -> _Request: ...
    @property
    def headers(self) -> _Headers: ...
    @property
    def extensions(self) -> Mapping[str, Any]: ...


def refuse_transports(options: Mapping[str, object]) -> None:
    """Refuse the options by which a client would connect by other means than its own context.

    Raises:
        UnenforceableContext: with ``transport`` or ``mounts``.
    """
    for name in ("transport", "mounts"):
        if options.get(name) is not None:
            raise UnenforceableContext(
                f"{name}= connects by a context of its own, past the pins; build a plain client with {name}= yourself, "
                "and give its HTTPTransport verify=dynpin.clientstore.enforce(context, store)"
            )


def with_hooks(given: Hooks | None, on_request: Callable[..., Any], on_response: Callable[..., Any]) -> Hooks:
    """The caller's event hooks and the two that are needed here."""
    hooks = dict(given or {})
    return {
        **hooks,
        "request": [*hooks.get("request", ()), on_request],
        # Before the caller's own: one that raises for a status must not keep the pins from being noted.
        "response": [on_response, *hooks.get("response", ())],
    }


def tell_site(request: _Request) -> None:
    """Have a report about what fails now carry the port of this request."""
    request_site.set((request.url.host, request.url.port or _HTTPS_PORT))


def note_response(store: PinStore, response: _Response) -> None:
    """Note what a response pins."""
    url = response.request.url
    if url.scheme not in ("https", "wss"):
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


def _peer(response: _Response) -> Peer | None:
    stream = response.extensions.get("network_stream")
    if stream is None:
        return None
    # Asynchronous streams, and TLS inside TLS, give the SSLObject; over a plain socket "ssl_object" is what stands
    # inside the SSLSocket, and "socket" is the SSLSocket itself.
    return peer_of(stream.get_extra_info("ssl_object")) or peer_of(stream.get_extra_info("socket"))
