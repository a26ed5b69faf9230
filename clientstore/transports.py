"""What the clients of httpx and httpx2 have in common: the two libraries differ in their names alone."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from typing import Any, Protocol
from urllib.request import getproxies

from dynpin.errors import InvalidHost, PinValidationError, UnenforceableContext
from dynpin.header import ENFORCE_NAME, REPORT_ONLY_NAME
from dynpin.hosts import canonical_host

from .enforcement import Peer, PrivateRoots, Reporter, peer_of, request_site
from .options import Lease, PinOptions, hardener
from .reports import ReportMode
from .responses import note_response as take_in
from .store import PinStore

__all__ = ["PinnedClientBase", "note_response", "tell_site", "with_hooks"]

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
    @property
    def extensions(self) -> Mapping[str, Any]: ...


class _Headers(Protocol):
    def get_list(self, key: str) -> list[str]: ...


class _Response(Protocol):
    @property
    def request(self) -> _Request: ...
    @property
    def headers(self) -> _Headers: ...
    @property
    def extensions(self) -> Mapping[str, Any]: ...


class PinnedClientBase:
    """Makes the client that is the next base: with a context that enforces, and hooks that note."""

    pin_library: Any  # the module
    _pin_tell_site: Callable[..., Any]
    _pin_note: Callable[..., Any]

    def __init__(
        self,
        store: PinStore | None = None,
        *,
        verify: ssl.SSLContext | str | bool = True,
        cert: Any = None,  # noqa: ANN401 - the library's own kinds
        trust_env: bool = True,
        private_roots: PrivateRoots = "enforce",
        public_roots: Iterable[bytes] | None = None,
        on_violation: Callable[[PinValidationError], None] | None = None,
        reporter: Reporter | ReportMode | None = "all",
        event_hooks: Hooks | None = None,
        **options: Any,  # noqa: ANN401 - the library's own
    ) -> None:
        _refuse_transports(options)
        self._pin_lease = Lease(store, self)
        self.pin_store = self._pin_lease.store

        harden = hardener(
            self.pin_store,
            PinOptions(
                private_roots=private_roots, public_roots=public_roots, on_violation=on_violation, reporter=reporter
            ),
        )

        def hardened_proxy(given: Any) -> Any:  # noqa: ANN401 - the library's own kinds
            proxy = copy(given) if isinstance(given, self.pin_library.Proxy) else self.pin_library.Proxy(given)
            if proxy.url.scheme == "https":
                # Its TLS has a context of its own, which must not show the site's client certificate.
                proxy.ssl_context = harden(proxy.ssl_context or make_context(trust_env=trust_env))
            return proxy

        make_context = self.pin_library.create_ssl_context
        context = harden(make_context(verify=verify, cert=cert, trust_env=trust_env))
        if options.get("proxy") is not None:
            options["proxy"] = hardened_proxy(options["proxy"])
        elif trust_env:
            # In place of the transports that the library would make for these, by contexts that it shows nobody.
            asynchronous = isinstance(self, self.pin_library.AsyncClient)
            transport = self.pin_library.AsyncHTTPTransport if asynchronous else self.pin_library.HTTPTransport
            how = {name: options[name] for name in ("http1", "http2", "limits") if name in options}
            options["mounts"] = {
                pattern: transport(verify=context, trust_env=trust_env, proxy=hardened_proxy(url), **how)
                for pattern, url in _tls_proxies_of_the_environment().items()
            }
        options |= {
            "verify": context,
            "trust_env": trust_env,
            "event_hooks": with_hooks(event_hooks, self._pin_tell_site, self._pin_note),
        }
        super().__init__(**options)


def _tls_proxies_of_the_environment() -> dict[str, str]:
    """The https proxies of the environment by the pattern under which httpx mounts them."""
    proxies = getproxies()
    if "*" in [name.strip() for name in proxies.get("no", "").split(",")]:
        return {}
    return {
        f"{scheme}://": proxies[scheme]
        for scheme in ("http", "https", "all")
        if proxies.get(scheme, "").lower().startswith("https://")
    }


def _refuse_transports(options: Mapping[str, object]) -> None:
    """Refuse the options by which a client would connect by other means than its own context."""
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
    """Have a report about what fails now carry the port of this request, whose TLS must be for its URL's own host.

    Raises:
        UnenforceableContext: with an ``sni_hostname`` of another name.
    """
    name, host = request.extensions.get("sni_hostname"), request.url.host
    # httpcore keeps its connections by the URL's origin: one whose TLS was held against the pins of another name would
    # serve the next plain request for this host.
    if name is not None and not _is_same_host(name, host):
        raise UnenforceableContext(
            f"sni_hostname={name!r} would have the connection to {host} held against the pins of another name; ask for "
            "the URL of the name that TLS shall verify, and have that name resolve to the address"
        )
    request_site.set((host, request.url.port or _HTTPS_PORT))


def _is_same_host(name: str, host: str) -> bool:
    try:
        return canonical_host(name) == canonical_host(host)
    except InvalidHost:
        return False


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
