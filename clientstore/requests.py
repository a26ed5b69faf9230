"""requests: a session, and the adapter in it, that note and enforce."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import Any

import requests
from requests.adapters import BaseAdapter, HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.util.ssl_ import create_urllib3_context

from dynpin.errors import UnenforceableContext

from .enforcement import refuse_certificate, same_roots
from .options import Lease, hardener, split_options
from .store import PinStore
from .urllib3 import note_responses

__all__ = ["PinnedAdapter", "PinnedSession"]


class PinnedAdapter(HTTPAdapter):
    """A transport adapter to mount on ``https://``: notes what responses pin, refuses any other key before a byte.

    ``verify`` and ``cert`` of requests work as ever: a CA bundle is trusted, a client certificate is shown. With
    ``verify=False`` Known Pinned Hosts are refused and nothing is noted. The TLS of an https proxy is held against the
    pins of the proxy's own name.

    Args:
        store: the Known Pinned Hosts; None for the user's own store.
        context: a context of your own, which is hardened and used whatever bundle ``verify`` names; None for requests'
            default roots. A request with ``cert`` is refused with it by TypeError: the context would show that client
            certificate to other hosts, too.
        options: everything else that :class:`requests.adapters.HTTPAdapter` takes.
    """

    def __init__(
        self,
        store: PinStore | None = None,
        *,
        context: ssl.SSLContext | None = None,
        **options: Any,  # noqa: ANN401 - PinOptions, and the library's own
    ) -> None:
        self._pin_lease = Lease(store, self)
        self.pin_store = self._pin_lease.store
        self._pin_own_context = context
        self._pin_harden = hardener(self.pin_store, split_options(options))
        self._pin_contexts: dict[object, ssl.SSLContext] = {}
        self._pin_proxy_contexts: dict[object, ssl.SSLContext] = {}
        super().__init__(**options)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **pool_kwargs: Any) -> None:  # noqa: ANN401 - requests' own
        """As requests', with connections that note.

        Raises:
            TypeError: with ``ssl_context`` and its like, from a class of your own: give ``PinnedAdapter(context=...)``.
        """
        for name, value in pool_kwargs.items():
            if name.startswith("ssl_") and value is not None:
                raise TypeError(
                    f"{name}= would have no effect, since each way to verify has an enforced context of its own: set "
                    "up a context and give it to PinnedAdapter(context=...)"
                )
        super().init_poolmanager(connections, maxsize, block, **pool_kwargs)
        note_responses(self.poolmanager, self.pin_store)

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> Any:  # noqa: ANN401 - requests' own
        """As requests', with connections that note."""
        manager = super().proxy_manager_for(proxy, **proxy_kwargs)
        note_responses(manager, self.pin_store)
        return manager

    def build_connection_pool_key_attributes(
        self,
        request: requests.PreparedRequest,
        verify: Any,  # noqa: ANN401 - requests' own
        cert: Any = None,  # noqa: ANN401 - requests' own
    ) -> Any:  # noqa: ANN401 - requests' own
        """As requests', with an enforced context for each way to verify.

        One context for all would carry what one request asked for, an unverified connection or a client certificate,
        into the next.
        """
        host, pool = super().build_connection_pool_key_attributes(request, verify, cert)
        if host["scheme"] == "https":
            if cert and verify and self._pin_own_context is not None:
                refuse_certificate()
            key = (verify, cert if isinstance(cert, str) or cert is None else tuple(cert))
            if key not in self._pin_contexts:
                self._pin_contexts[key] = self._pin_harden(self._pin_context(verify))
            pool = {**pool, "ssl_context": self._pin_contexts[key]}
            pool.pop("ca_certs", None)
            pool.pop("ca_cert_dir", None)
        return host, pool

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:  # noqa: ANN401 - requests' own
        """As requests'; the roots stand in the context already, which urllib3 would otherwise load them into again."""
        super().cert_verify(conn, url, verify, cert)
        conn.ca_certs = conn.ca_cert_dir = None
        # Here, and not where the proxy's manager is made: that one serves every `verify`, and this pool one of them.
        if conn.proxy is not None and conn.proxy.scheme == "https":
            proxy_context = self._pin_proxy_context(conn.proxy_config.ssl_context, verify)
            conn.conn_kw["proxy_config"] = conn.proxy_config._replace(ssl_context=proxy_context)

    def _pin_proxy_context(
        self, given: ssl.SSLContext | None, verify: bool | str | os.PathLike[str] | None
    ) -> ssl.SSLContext:
        key = given or verify
        if key not in self._pin_proxy_contexts:
            # One that is made here must not show the site's client certificate to the proxy.
            own = same_roots(self._pin_own_context) if self._pin_own_context and verify else self._pin_context(verify)
            self._pin_proxy_contexts[key] = self._pin_harden(given or own)
        return self._pin_proxy_contexts[key]

    def _pin_context(self, verify: bool | str | os.PathLike[str] | None) -> ssl.SSLContext:
        # Whatever bundle `verify` names: requests takes it from the environment too, past the caller's own roots.
        if self._pin_own_context is not None and verify:
            return self._pin_own_context
        if not verify:
            return create_urllib3_context(cert_reqs=ssl.CERT_NONE)
        context = create_urllib3_context()
        roots = Path(DEFAULT_CA_BUNDLE_PATH if verify is True else verify)
        folder = roots.is_dir()
        context.load_verify_locations(capath=roots if folder else None, cafile=None if folder else roots)
        return context


class PinnedSession(requests.Session):
    """A :class:`requests.Session` that notes what responses pin and refuses any other key before a byte is sent.

    A refusal is a :class:`requests.exceptions.SSLError`; :func:`dynpin.clientstore.pin_violation` finds the
    :class:`~dynpin.PinValidationError` in it. For a session of another class, mount :class:`PinnedAdapter`.

    Args:
        store: the Known Pinned Hosts; None for the user's own store.
        options: everything else that :class:`PinnedAdapter` takes, such as ``context`` and ``max_retries``.
    """

    def __init__(self, store: PinStore | None = None, **options: Any) -> None:  # noqa: ANN401 - those of PinnedAdapter
        super().__init__()
        super().mount("https://", PinnedAdapter(store, **options))

    def mount(self, prefix: str, adapter: BaseAdapter) -> None:
        """As requests'; an adapter for https that is no :class:`PinnedAdapter` is refused.

        Raises:
            UnenforceableContext: for such an adapter, which would connect past the pins.
        """
        # Its own come first, in __init__.
        made = isinstance(self.adapters.get("https://"), PinnedAdapter)
        if made and prefix.lower().startswith("https:") and not isinstance(adapter, PinnedAdapter):
            raise UnenforceableContext(
                f"a {type(adapter).__name__} for {prefix} would connect past the pins: mount a PinnedAdapter, which "
                "takes the same options, such as max_retries="
            )
        super().mount(prefix, adapter)
