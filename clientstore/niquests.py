"""niquests: sessions and adapters that note and enforce pins, synchronous and asynchronous.

HTTP/3 is switched off, since it does not use ``ssl``. niquests installs a fork of urllib3 that replaces urllib3 itself.
So niquests is in none of dynpin's extras, and is tested in an environment of its own.
"""

# niquests is not installed in the environment for type checks, for the same reason.
# pyright: reportMissingImports=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUntypedBaseClass=false, reportUnknownArgumentType=false, reportUnknownParameterType=false
from __future__ import annotations

import asyncio
import os
import ssl
from typing import Any, ClassVar, Unpack

import niquests
import niquests.adapters
import niquests.exceptions

from dynpin.errors import UnenforceableContext

from .adapters import NotCopied, foreign_pool, hold_url, text_of
from .enforcement import refuse_bundle
from .names import Names, host_of_url
from .niquests_connections import NotedAsyncConnection, NotedConnection, Noting
from .options import Lease, PinOptions, hardener, split_options
from .store import PinStore

__all__ = [
    "AdapterOptions",
    "PinnedAdapter",
    "PinnedAsyncAdapter",
    "PinnedAsyncSession",
    "PinnedSession",
    "SessionOptions",
]

# The schemes of URLs whose requests use TLS. For the last two niquests may also use the adapter for https://.
_TLS_SCHEMES = ("https:", "wss:", "sse:")
_TLS_RESOLVERS = ("doh", "dot", "doq")
_HTTP_ADAPTERS = (niquests.adapters.HTTPAdapter, niquests.adapters.AsyncHTTPAdapter)


class AdapterOptions(PinOptions, total=False):
    """The options of niquests' HTTPAdapter, and :class:`~dynpin.clientstore.PinOptions`."""

    max_retries: Any  # an int or a Retry of urllib3.future
    resolver: Any  # a URL, a list of them or a resolver
    quic_cache_layer: Any
    pool_connections: int
    pool_maxsize: int
    pool_block: bool
    disable_http1: bool
    disable_http2: bool
    disable_http3: bool
    disable_ipv4: bool
    disable_ipv6: bool
    source_address: tuple[str, int] | None
    happy_eyeballs: bool | int
    keepalive_delay: float | None
    keepalive_idle_window: float | None
    revocation_configuration: Any  # a niquests.RevocationConfiguration or None
    allow_incoming_cookies: bool
    tls_configuration: Any  # a niquests.TLSConfiguration or None


class SessionOptions(AdapterOptions, total=False):
    """The options of a Session of niquests, and :class:`~dynpin.clientstore.PinOptions`."""

    retries: Any
    multiplexed: bool
    base_url: str | None
    timeout: Any
    headers: Any
    auth: Any
    hooks: Any
    params: Any
    cookies: Any
    proxies: Any
    verify: Any
    cert: Any
    app: Any
    json_encoder: Any


# The options of a Session that it passes on to its adapter.
_OF_ADAPTERS = tuple(
    AdapterOptions.__annotations__.keys() - PinOptions.__annotations__.keys() - {"max_retries", "resolver"}
)


class _Pinned(NotCopied):
    """The common part of the two adapters."""

    pin_connection: ClassVar[type[Noting]]

    def __init__(
        self,
        store: PinStore | None = None,
        *,
        context: ssl.SSLContext | None = None,
        **options: Unpack[AdapterOptions],
    ) -> None:
        given: dict[str, Any] = {**options}
        pin_options = split_options(given)
        if not given.setdefault("disable_http3", True):
            raise UnenforceableContext("HTTP/3 does not use ssl, so pins cannot be enforced on it")
        self.pin_lease = Lease(store, self)
        self.pin_store = self.pin_lease.store
        self.pin_context = context
        self.pin_harden = hardener(self.pin_store, pin_options)
        self.pin_names = Names(self.pin_store, pin_options)
        _refuse_tls_resolver(given.get("resolver"))
        inherited: Any = super()
        inherited.__init__(**given)

    @property
    def poolmanager(self) -> Any:  # noqa: ANN401 - niquests' own
        """The pool manager, whose connections note and enforce pins, also if it was made elsewhere and set here."""
        return vars(self)["poolmanager"]

    @poolmanager.setter
    def poolmanager(self, manager: Any) -> None:  # noqa: ANN401 - niquests' own
        self._pin_connections(manager)
        vars(self)["poolmanager"] = manager

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:  # noqa: ANN401 - niquests' own
        inherited: Any = super()
        manager = inherited.proxy_manager_for(proxy, **options)
        self._pin_connections(manager)
        return manager

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> Any:  # noqa: ANN401 - niquests' own
        """Like niquests'. An https proxy is verified for an http:// URL too.

        Raises:
            UnenforceableContext: if the pool for TLS does not check pins.
            niquests.exceptions.SSLError: if the URL's host is pinned, and the pool connects to another one.
        """
        if self.pin_context is not None:
            refuse_bundle(verify)
        if url.lower().startswith(_TLS_SCHEMES):
            self.pin_hold(url, conn.conn_kw.get("server_hostname") or conn.host)
        inherited: Any = super()
        tls = conn.proxy is not None and conn.proxy.scheme == "https"
        if (tls or conn.scheme == "https") and not issubclass(conn.ConnectionCls, Noting):
            raise foreign_pool(self)
        return inherited.cert_verify(conn, "https:" if tls else url, verify, cert)

    def pin_hold(self, url: str, connected: str) -> None:
        """Refuse a request whose URL names a Known Pinned Host, if niquests connects to another one.

        Raises:
            niquests.exceptions.SSLError: nothing was sent.
        """
        hold_url(self.pin_names, url, connected, niquests.exceptions.SSLError)

    def _pin_connections(self, manager: Any) -> None:  # noqa: ANN401 - niquests' own
        pool = manager.pool_classes_by_scheme["https"]
        if not issubclass(pool.ConnectionCls, Noting):
            connection = type("NotingConnection", (self.pin_connection, pool.ConnectionCls), {"pin_adapter": self})
            noting = type("NotingPool", (pool,), {"ConnectionCls": connection})
            manager.pool_classes_by_scheme = {**manager.pool_classes_by_scheme, "https": noting}


class PinnedAdapter(_Pinned, niquests.adapters.HTTPAdapter):  # type: ignore[misc, unused-ignore] # Any where it is absent
    """A transport adapter for ``https://``. It notes pins from responses, and refuses wrong keys before it sends.

    ``wss://`` and ``sse://`` use it too. The TLS of an https proxy is checked against the pins of the proxy's own name;
    if http:// URLs go through such a proxy, mount the adapter on ``http://`` as well. The TLS of a name server is not
    enforced, so a resolver for DNS over HTTPS, TLS or QUIC is refused.

    Args:
        store: the Known Pinned Hosts; None for the user's own store.
        context: a context of your own, which is hardened and replaces the default roots; None for the context that
            niquests makes from ``verify`` and ``cert``. With a context of your own, a request with a bundle for
            ``verify``, or with ``cert``, raises TypeError: the context would then trust that bundle, or show that
            client certificate, for other hosts too.
        options: see :class:`AdapterOptions`; ``disable_http3=False`` is refused.
    """

    pin_connection = NotedConnection

    def close(self) -> None:
        """Like niquests'; closing the last client also closes the user's own store."""
        super().close()
        self.pin_lease.end()


class PinnedAsyncAdapter(_Pinned, niquests.adapters.AsyncHTTPAdapter):  # type: ignore[misc, unused-ignore] # see above
    """The same for an AsyncSession."""

    pin_connection = NotedAsyncConnection

    async def close(self) -> None:
        """Like niquests'; closing the last client also closes the user's own store."""
        await super().close()
        await asyncio.to_thread(self.pin_lease.end)  # may wait for the disk


class _PinnedSession(NotCopied):
    """The common part of the two sessions."""

    pin_adapter: ClassVar[type[_Pinned]]
    _pin_made = False

    def __init__(
        self,
        store: PinStore | None = None,
        *,
        context: ssl.SSLContext | None = None,
        **options: Unpack[SessionOptions],
    ) -> None:
        given: dict[str, Any] = {"disable_http3": True, **options}
        pin_options = split_options(given)
        _refuse_tls_resolver(given.get("resolver") or os.environ.get("NIQUESTS_DNS_URL"))
        inherited: Any = super()
        inherited.__init__(**given)
        made: Any = self
        of_adapter = {name: given[name] for name in _OF_ADAPTERS if name in given}
        of_adapter |= {"max_retries": made.retries, "resolver": made.resolver}
        adapter = self.pin_adapter(store, context=context, **pin_options, **of_adapter)
        for prefix in ("https://", "wss://", "sse://", "http://"):  # http:// too: its proxy may use https
            self.mount(prefix, adapter)
        self._pin_made = True

    def mount(self, prefix: str, adapter: Any) -> None:  # noqa: ANN401 - niquests' own
        """Like niquests', but refuses an adapter that would connect without checking the pins.

        Raises:
            UnenforceableContext: for an adapter without pins, if its URLs use TLS or an https proxy.
        """
        # A session that is used after it was closed mounts new adapters of niquests.
        if self._pin_made:
            _refuse_unpinned(prefix, adapter)
        inherited: Any = super()
        inherited.mount(prefix, adapter)

    def prepare_request(self, request: Any) -> Any:  # noqa: ANN401 - niquests' own
        """Like niquests'.

        Raises:
            niquests.exceptions.SSLError: if niquests writes the name of a Known Pinned Host as another name.
        """
        inherited: Any = super()
        prepared = inherited.prepare_request(request)
        made: Any = self
        adapter = made.get_adapter(prepared.url or "")
        url = text_of(request.url)
        if isinstance(adapter, _Pinned) and not url.isascii():
            adapter.pin_hold(url, host_of_url(prepared.url or ""))
        return prepared

    def send(self, request: Any, **options: Any) -> Any:  # noqa: ANN401 - niquests' own
        """Like niquests'; of an asynchronous session, a coroutine.

        Raises:
            UnenforceableContext: as :meth:`mount` does: ``adapters`` is an attribute that anybody can change.
        """
        made: Any = self
        _refuse_unpinned(request.url or "", made.get_adapter(request.url or ""))
        inherited: Any = super()
        return inherited.send(request, **options)


class PinnedSession(_PinnedSession, niquests.Session):  # type: ignore[misc, unused-ignore] # Any where it is absent
    """A niquests.Session that notes pins from responses, and refuses wrong keys before it sends a byte.

    A refusal is a :class:`niquests.exceptions.SSLError`; :func:`dynpin.clientstore.pin_violation` finds the
    :class:`~dynpin.PinValidationError` in it.

    Args:
        store: the Known Pinned Hosts; None for the user's own store.
        context: see :class:`PinnedAdapter`.
        options: see :class:`SessionOptions`; ``disable_http3=False`` and a ``resolver`` over TLS are refused.
    """

    pin_adapter = PinnedAdapter


class PinnedAsyncSession(_PinnedSession, niquests.AsyncSession):  # type: ignore[misc, unused-ignore] # see above
    """A niquests.AsyncSession; see :class:`PinnedSession`."""

    pin_adapter = PinnedAsyncAdapter


def _refuse_unpinned(url: str, adapter: Any) -> None:  # noqa: ANN401 - niquests' own
    name = url.lower()
    # A plain adapter for http:// may connect to an https proxy.
    plain = isinstance(adapter, _HTTP_ADAPTERS) and "+unix" not in name.partition("://")[0]
    if (plain or name.startswith(_TLS_SCHEMES)) and not isinstance(adapter, _Pinned):
        raise UnenforceableContext(
            f"an adapter for {url} that is not enforced would connect without checking the pins: mount a "
            "PinnedAdapter, and make a new session if this one was closed"
        )


def _refuse_tls_resolver(resolver: Any) -> None:  # noqa: ANN401 - niquests' own kinds
    """Refuse a resolver over TLS before it is made, since one for DNS over TLS connects at once."""
    asked: list[Any] = resolver if isinstance(resolver, list) else [resolver]
    # The resolver may be one that holds several others in lists.
    lists = [value for one in asked for value in getattr(one, "__dict__", {}).values() if isinstance(value, list)]
    held = [inner for several in lists for inner in several if not isinstance(inner, str)]
    for one in (*asked, *held):
        scheme = one if isinstance(one, str) else getattr(getattr(one, "protocol", None), "value", "")
        if scheme.partition(":")[0].partition("+")[0].lower() in _TLS_RESOLVERS:
            raise UnenforceableContext(
                f"the TLS of a name server ({scheme}) is not checked against pins; leave out resolver= and "
                "NIQUESTS_DNS_URL, or use system:// or dou://"
            )
