"""requests: a session, and its adapter, that note and enforce pins."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any, Unpack

import requests
import urllib3
from requests.adapters import BaseAdapter, HTTPAdapter
from requests.utils import prepend_scheme_if_needed, resolve_proxies, select_proxy

from dynpin.errors import UnenforceableContext

from .adapters import NotCopied, foreign_pool, hold_url, text_of
from .doubles import is_adapter
from .enforcement import refuse_bundle, refuse_certificate, same_roots
from .names import Names, host_of_url
from .options import Lease, PinOptions, hardener, split_options
from .store import PinStore
from .urllib3 import PinnedPools

__all__ = ["AdapterOptions", "PinnedAdapter", "PinnedSession"]


class AdapterOptions(PinOptions, total=False):
    """The options of :class:`requests.adapters.HTTPAdapter`, and :class:`~dynpin.clientstore.PinOptions`."""

    pool_connections: int
    pool_maxsize: int
    max_retries: int | urllib3.Retry
    pool_block: bool


class PinnedAdapter(NotCopied, HTTPAdapter):
    """A transport adapter for ``https://``. It notes pins from responses, and refuses wrong keys before it sends.

    ``verify`` and ``cert`` work as in requests: a CA bundle is trusted, a client certificate is shown. Each way to
    verify has its own context, so that no request affects the next one. With ``verify=False`` Known Pinned Hosts are
    refused and nothing is noted. The TLS of an https proxy is checked against the pins of the proxy's own name; if
    http:// URLs go through such a proxy, mount the adapter on ``http://`` too.

    Args:
        store: the Known Pinned Hosts; None for the user's own store.
        context: a context of your own, which is hardened. It replaces requests' default roots, and those in
            ``REQUESTS_CA_BUNDLE``. With it a request with ``verify="bundle.pem"`` or ``cert`` raises TypeError: the
            context would then trust that bundle, or show that client certificate, for other hosts too.
        options: see :class:`AdapterOptions`.
    """

    def __init__(
        self,
        store: PinStore | None = None,
        *,
        context: ssl.SSLContext | None = None,
        **options: Unpack[AdapterOptions],
    ) -> None:
        given: dict[str, Any] = {**options}
        pin_options = split_options(given)
        self._pin_lease = Lease(store, self)
        self.pin_store = self._pin_lease.store
        self._pin_context = context
        harden = hardener(self.pin_store, pin_options)
        self._pin_pools = PinnedPools(self.pin_store, Names(self.pin_store, pin_options), harden)
        if context is not None:
            self._pin_pools.enforced(context)
        super().__init__(**given)

    @property
    def poolmanager(self) -> Any:  # noqa: ANN401 - urllib3's
        """The pool manager, whose connections note and enforce pins, also if it was made elsewhere and set here.

        Raises:
            TypeError: for one with an ``ssl_context``: give ``PinnedAdapter(context=...)``.
        """
        return vars(self)["poolmanager"]

    @poolmanager.setter
    def poolmanager(self, manager: Any) -> None:  # pyright: ignore[reportIncompatibleVariableOverride] # noqa: ANN401
        # Adapters of requests-toolbelt, and many of people's own, make one without calling requests' own method.
        if manager.connection_pool_kw.get("ssl_context") is not None:
            raise TypeError(
                "ssl_context= would have no effect, since each way to verify has its own enforced context: set up a "
                "context and give it to PinnedAdapter(context=...)"
            )
        self._pin_pools.take(manager)
        vars(self)["poolmanager"] = manager

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> Any:  # noqa: ANN401 - requests' own
        """Like requests', with connections that note pins."""
        if self._pin_context is not None and proxy.lower().startswith("https:") and proxy not in self.proxy_manager:
            # If requests makes the context, it must not show the site's client certificate to the proxy.
            proxy_kwargs.setdefault("proxy_ssl_context", same_roots(self._pin_context))
        manager = super().proxy_manager_for(proxy, **proxy_kwargs)
        self._pin_pools.take(manager)
        return manager

    def build_connection_pool_key_attributes(
        self,
        request: requests.PreparedRequest,
        verify: Any,  # noqa: ANN401 - requests' own
        cert: Any = None,  # noqa: ANN401 - requests' own
    ) -> Any:  # noqa: ANN401 - requests' own
        """Like requests'.

        Raises:
            TypeError: for a request's own bundle or client certificate, if the context is the caller's.
        """
        # requests compares pools by strings only.
        verify = str(verify) if isinstance(verify, Path) else verify
        host, pool = super().build_connection_pool_key_attributes(request, verify, cert)
        if host["scheme"] == "https" and verify and self._pin_context is not None:
            if cert:
                refuse_certificate()
            refuse_bundle(verify)
            pool = {"ssl_context": self._pin_context}
        return host, pool

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:  # noqa: ANN401 - requests' own
        """Like requests'. An https proxy is verified for an http:// URL too.

        Raises:
            UnenforceableContext: if the pool for an https URL or proxy does not check pins.
            requests.exceptions.SSLError: if the URL's host is pinned, and the pool connects to another one.
        """
        of_site = url.lower().startswith("https:")
        tls = of_site or (conn.proxy is not None and conn.proxy.scheme == "https")
        if of_site:
            self.pin_hold(url, conn.conn_kw.get("server_hostname") or conn.host)
        if tls and not self._pin_pools.made(conn):
            raise foreign_pool(self)
        super().cert_verify(conn, "https:" if tls else url, verify, cert)
        if self._pin_context is not None and verify:
            # urllib3 would load requests' default roots into the caller's context.
            conn.cert_reqs = conn.ca_certs = conn.ca_cert_dir = None

    def pin_hold(self, url: str, connected: str) -> None:
        """Refuse a request whose URL names a Known Pinned Host, if requests connects to another one.

        Raises:
            requests.exceptions.SSLError: nothing was sent.
        """
        hold_url(self._pin_pools.names, url, connected, requests.exceptions.SSLError)

    def close(self) -> None:
        """Like requests'; closing the last client also closes the user's own store."""
        super().close()
        self._pin_lease.end()


class PinnedSession(requests.Session):
    """A :class:`requests.Session` that notes pins from responses, and refuses wrong keys before it sends a byte.

    A refusal is a :class:`requests.exceptions.SSLError`; :func:`dynpin.clientstore.pin_violation` finds the
    :class:`~dynpin.PinValidationError` in it. For a session of another class, mount :class:`PinnedAdapter`. A session
    cannot be pickled: make one in each process.

    Args:
        store: the Known Pinned Hosts; None for the user's own store.
        context: a context of your own; see :class:`PinnedAdapter`.
        options: see :class:`AdapterOptions`.
    """

    def __init__(
        self,
        store: PinStore | None = None,
        *,
        context: ssl.SSLContext | None = None,
        **options: Unpack[AdapterOptions],
    ) -> None:
        super().__init__()
        adapter = PinnedAdapter(store, context=context, **options)
        super().mount("https://", adapter)
        super().mount("http://", adapter)  # http:// too: its proxy may use https

    def mount(self, prefix: str, adapter: BaseAdapter) -> None:
        """Like requests', but refuses an adapter for https that is not a :class:`PinnedAdapter`.

        Raises:
            UnenforceableContext: for such an adapter, which would connect without checking the pins. The adapter of
                requests-mock is allowed, since it never connects.
        """
        # The session's own adapters are mounted first, in __init__.
        if isinstance(self.adapters.get("https://"), PinnedAdapter):
            _refuse_unpinned(prefix, adapter)
        super().mount(prefix, adapter)

    def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
        """Like requests'.

        Raises:
            requests.exceptions.SSLError: if requests writes the name of a Known Pinned Host as another name.
        """
        prepared = super().prepare_request(request)
        adapter = self.get_adapter(prepared.url or "")
        url = text_of(request.url)
        if isinstance(adapter, PinnedAdapter) and not url.isascii():
            adapter.pin_hold(url, host_of_url(prepared.url or ""))
        return prepared

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:  # noqa: ANN401 - requests' own
        """Like requests'.

        Raises:
            UnenforceableContext: if the adapter for the URL is not a :class:`PinnedAdapter`, and the URL or its proxy
                has TLS: the connection would be made without checking the pins.
        """
        adapter = self.get_adapter(request.url or "")
        _refuse_unpinned(request.url or "", adapter)  # `adapters` is an attribute that anybody can change
        if isinstance(adapter, HTTPAdapter) and not isinstance(adapter, PinnedAdapter):
            given = "proxies" in kwargs  # as in requests: then it asks neither the session nor the environment
            proxies = kwargs["proxies"] if given else resolve_proxies(request, self.proxies, self.trust_env)
            proxy = select_proxy(request.url or "", proxies)
            if proxy and prepend_scheme_if_needed(proxy, "http").lower().startswith("https:"):
                raise UnenforceableContext(
                    f"a {type(adapter).__name__} would connect to the proxy {proxy} without checking its pins: mount a "
                    "PinnedAdapter for http:// too"
                )
        return super().send(request, **kwargs)


def _refuse_unpinned(url: str, adapter: BaseAdapter) -> None:
    if url.lower().startswith("https:") and not (isinstance(adapter, PinnedAdapter) or is_adapter(adapter)):
        raise UnenforceableContext(
            f"a {type(adapter).__name__} for {url} would connect without checking the pins: mount a PinnedAdapter, "
            "which takes the same options, such as max_retries=; or one of both kinds: "
            f"class Pinned{type(adapter).__name__}({type(adapter).__name__}, PinnedAdapter)"
        )
