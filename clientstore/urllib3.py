"""urllib3 2: pool managers that note and enforce pins. The adapter for requests uses them too."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Unpack
from weakref import WeakSet

import urllib3
import urllib3.util.ssl_ as urllib3_ssl
from urllib3.connection import HTTPSConnection
from urllib3.exceptions import SSLError
from urllib3.util.ssl_ import resolve_cert_reqs
from urllib3.util.url import parse_url

from dynpin.errors import PinValidationError, UnenforceableContext

from .doubles import sockets_are_doubles
from .enforcement import Peer, is_enforced
from .http_client import NotedConnection
from .names import Names, host_of_url
from .options import Harden, Lease, PinOptions, hardener, split_options
from .store import PinStore
from .urllib3_tls import ASSERTED, LOADED, ConnectionOption, TLSOptions, refuse_assertions

__all__ = ["ManagerOptions", "PinnedPools", "note_responses", "pinned_pool_manager"]

# A program may use many client certificates, or renew them. Only the most recently used contexts are kept.
_CONTEXTS = 32


class ManagerOptions(PinOptions, total=False):
    """The options of :class:`urllib3.PoolManager`, and :class:`~dynpin.clientstore.PinOptions`.

    ``assert_hostname`` and ``assert_fingerprint`` are not among them: with these urllib3 switches off TLS's own
    verification. Give ``server_hostname``, or pin the certificate.
    """

    num_pools: int
    headers: Mapping[str, str] | None
    timeout: urllib3.Timeout | float | None
    maxsize: int
    block: bool
    retries: urllib3.Retry | bool | int | None
    blocksize: int | None
    source_address: tuple[str, int] | None
    socket_options: list[tuple[int, int, int | bytes]] | None
    ca_certs: str | None
    ca_cert_dir: str | None
    ca_cert_data: str | bytes | None
    cert_file: str | None
    key_file: str | None
    key_password: str | None
    cert_reqs: int | str | None
    ssl_version: int | str | None
    ssl_minimum_version: ssl.TLSVersion | None
    ssl_maximum_version: ssl.TLSVersion | None
    server_hostname: str | None
    proxy_headers: Mapping[str, str] | None
    proxy_ssl_context: ssl.SSLContext | None


def pinned_pool_manager(
    store: PinStore | None = None,
    *,
    ssl_context: ssl.SSLContext | None = None,
    proxy_url: str | None = None,
    **options: Unpack[ManagerOptions],
) -> urllib3.PoolManager:
    """A :class:`urllib3.PoolManager` that notes pins from responses, and refuses wrong keys before it sends a byte.

    A refusal is a :class:`urllib3.exceptions.MaxRetryError` around an ``SSLError``, or the ``SSLError`` itself without
    retries; :func:`dynpin.clientstore.pin_violation` finds the :class:`~dynpin.PinValidationError` in it.

    If TLS options are given for one pool, that pool has its own context, and other pools do not change. Together with
    an `ssl_context` of the caller's own they raise TypeError, since urllib3 would load them into that context.

    Args:
        store: the Known Pinned Hosts; None for the user's own store.
        ssl_context: a context of your own, which is hardened. The roots and the client certificate in `options` are
            loaded into it. None for a context with the roots in `options`, or the system's.
        proxy_url: use this HTTP proxy, with CONNECT. The TLS of an https proxy is checked against the pins of the
            proxy's own name; its context is ``proxy_ssl_context``, or one with the roots in `options`.
        options: see :class:`ManagerOptions`.

    Raises:
        UnenforceableContext: for ``use_forwarding_for_https``, which leaves the sites' TLS to the proxy; for
            ``assert_hostname=False`` or ``assert_fingerprint``, here or for a pool; if pyOpenSSL was injected.
        TypeError: for urllib3's ``ssl_…version`` together with an `ssl_context`, where it has no effect.
    """
    given: dict[str, Any] = {**options}
    pin_options = split_options(given)
    refuse_assertions(given.get("assert_hostname"), given.get("assert_fingerprint"))
    roots = TLSOptions.of(given)
    if ssl_context is not None:
        _load_once(ssl_context, given)
    if proxy_url is not None and parse_url(proxy_url).scheme == "https" and ssl_context is not None:
        given["proxy_ssl_context"] = given.get("proxy_ssl_context") or roots.for_a_proxy().context()
    manager = (
        _PoolManager(ssl_context=ssl_context, **given)
        if proxy_url is None
        else _ProxyManager(proxy_url, ssl_context=ssl_context, **given)
    )
    manager.pin_lease = Lease(store, manager)
    pins = manager.pin_lease.store
    pools = PinnedPools(pins, Names(pins, pin_options), hardener(pins, pin_options))
    for context in (ssl_context, given.get("proxy_ssl_context")):
        if context is not None:
            pools.enforced(context)
    pools.take(manager)
    manager.pin_pools = pools
    return manager


def note_responses(manager: urllib3.PoolManager, store: PinStore) -> None:
    """Let a pool manager of your own note the https responses of its connections: a SOCKS proxy's, for example.

    Its contexts enforce the pins: give it ``ssl_context=enforce(context, store)``, and for an https proxy
    ``proxy_ssl_context`` too. With any other context its connections raise UnenforceableContext.

    Raises:
        UnenforceableContext: if the manager was made with ``use_forwarding_for_https``.
    """
    PinnedPools(store, Names(store, {})).take(manager)


class PinnedPools:
    """Makes the pools of one client's managers note and enforce pins.

    Args:
        store: the Known Pinned Hosts.
        names: checks the names of requests.
        harden: hardens each context; None if the client's user has done that.
    """

    def __init__(self, store: PinStore, names: Names, harden: Harden | None = None) -> None:
        self.store = store
        self.names = names
        self._harden = harden
        self._hardened: WeakSet[ssl.SSLContext] = WeakSet()
        self._made = lru_cache(_CONTEXTS)(self._make)
        # vcrpy, for example, replaces the class during a test.
        self.connection_class = lru_cache(8)(self._connection_class)

    def take(self, manager: urllib3.PoolManager) -> None:
        """Make the https pools of a manager note and enforce pins.

        Raises:
            UnenforceableContext: if the manager was made with ``use_forwarding_for_https``.
        """
        _refuse_pyopenssl()
        if manager.proxy_config is not None and manager.proxy_config.use_forwarding_for_https:
            raise UnenforceableContext(
                "use_forwarding_for_https=True lets the proxy speak TLS with the sites, and their pins cannot be "
                "checked; leave it out, and the proxy tunnels with CONNECT"
            )
        # Based on the manager's own class: a SOCKS proxy's pools connect in their own way.
        pool: Any = manager.pool_classes_by_scheme["https"]
        if issubclass(pool, _Pool):
            if pool.pin_pools is self:
                return  # done already: requests asks for the manager of a proxy before each request
            pool = pool.__mro__[2]
        made: Any = type("PinnedPool", (_Pool, pool), {"pin_pools": self})
        manager.pool_classes_by_scheme = {**manager.pool_classes_by_scheme, "https": made}

    def made(self, pool: object) -> bool:
        """Whether the connections of a pool note and enforce the pins of this client."""
        return isinstance(pool, _Pool) and pool.pin_pools is self

    def hold(self, asked: str, connected: str | None) -> None:
        """Refuse a request whose host is pinned and is not the one that urllib3 connects to.

        Raises:
            SSLError: urllib3's.
        """
        try:
            self.names.hold([asked], connected)
        except PinValidationError as violation:
            raise SSLError(violation) from violation

    def _connection_class(self, made: type[HTTPSConnection]) -> type[HTTPSConnection]:
        if issubclass(made, _Connection):
            return made
        return type("PinnedConnection", (_Connection, made), {"pin_pools": self})

    def context(self, asked: TLSOptions) -> ssl.SSLContext | None:
        """The enforced context for the TLS options of a connection; None for urllib3's own, for a test double."""
        if asked.ssl_context is not None:
            asked.refuse_beside_a_context()
            return self.enforced(asked.ssl_context)
        # Without `harden` urllib3 makes a context, and the connection is refused after it has connected.
        return None if self._harden is None or sockets_are_doubles() else self._made(asked, asked.stamps())

    def context_of_a_proxy(self, asked: TLSOptions, proxy: str) -> ssl.SSLContext | None:
        """The same for an https proxy.

        Raises:
            UnenforceableContext: if the client's user has not hardened it: CONNECT would be sent to any key.
        """
        context = self.context(asked)
        if self._harden is None and not (context and is_enforced(context)) and not sockets_are_doubles():
            raise UnenforceableContext(
                f"the connection to the proxy {proxy} would not be checked against the pins, since its context is not "
                "enforced; give the manager proxy_ssl_context=enforce(context, store)"
            )
        return context

    def _make(self, asked: TLSOptions, stamps: tuple[int | None, ...]) -> ssl.SSLContext:
        return self.enforced(asked.context())

    def enforced(self, context: ssl.SSLContext) -> ssl.SSLContext:
        """Harden a context once. Not while test doubles replace sockets, since they cannot be probed.

        Raises:
            UnenforceableContext: if that cannot be done.
        """
        _refuse_pyopenssl()
        if self._harden is not None and context not in self._hardened and not sockets_are_doubles():
            self._harden(context)
            self._hardened.add(context)
        return context


class _Pool:
    """Goes before the class of a pool: its connections note pins, whatever their class is at the time."""

    pin_pools: PinnedPools

    @property
    def ConnectionCls(self) -> type[HTTPSConnection]:
        """The class of the pool's connections."""
        inherited: Any = super()
        return self.pin_pools.connection_class(vars(self).get("ConnectionCls") or inherited.ConnectionCls)

    @ConnectionCls.setter
    def ConnectionCls(self, made: type[HTTPSConnection]) -> None:
        vars(self)["ConnectionCls"] = made


class _Connection(NotedConnection, HTTPSConnection):  # type: ignore[misc] # urllib3 answers with a response of its own
    """Has an enforced context that its options cannot change for another connection."""

    pin_pools: PinnedPools
    # The options by name: those of the constructor, and what was set on the connection since.
    _pin_options: dict[str, Any]

    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - urllib3's own
        # Here and not in connect(): vcrpy makes a connection of its own with these options, and may connect it later.
        # urllib3 would load the options into the context, and loosen it to compare a name itself.
        asked = {name: options.get(name) for name in (*TLSOptions._fields, *ASSERTED)}
        context = self.pin_pools.context(TLSOptions.of(asked))
        for name in ASSERTED if context is None else asked:
            options.pop(name, None)
        if context is not None:
            options["ssl_context"] = context
        super().__init__(*args, **options)  # pyright: ignore[reportUnknownMemberType] # urllib3's ssl may be None
        self._pin_options = asked
        self.pin_store, self.pin_names = self.pin_pools.store, self.pin_pools.names

    def connect(self) -> None:
        """Like urllib3's, with an enforced context for the site and for an https proxy.

        Raises:
            UnenforceableContext: if urllib3 would verify other than with TLS.
            TypeError: for options that would change a context of the caller's own.
        """
        self._pin_refuse_assertions()
        tls = TLSOptions.of(self._pin_options)
        context = self.pin_pools.context(tls)  # again, since files may have been renewed
        if self.proxy is not None and self.proxy.scheme == "https":
            config: Any = self.proxy_config
            asked = TLSOptions.of({"ssl_context": config.ssl_context}) if config.ssl_context else tls.for_a_proxy()
            proxy_context = self.pin_pools.context_of_a_proxy(asked, self.host)
            refuse_assertions(config.assert_hostname, config.assert_fingerprint, self.host)
            self.proxy_config = config._replace(ssl_context=proxy_context, assert_hostname=None)
            if self.proxy_is_forwarding:
                context = proxy_context
        if context is not None:
            self.ssl_context = context
        super().connect()

    def request(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - urllib3's own
        """Like urllib3's. vcrpy connects in its own way, with the options that were set."""
        self._pin_refuse_assertions()
        super().request(*args, **options)

    def _pin_proved(self) -> Peer:
        self._pin_refuse_assertions()  # a class of the user's own may have set them while it connected
        return super()._pin_proved()

    def _pin_refuse_assertions(self) -> None:
        name, fingerprint = map(self._pin_options.get, ASSERTED)
        refuse_assertions(name, fingerprint, self.server_hostname or self._pin_site()[0])


for _name in (*TLSOptions._fields, *ASSERTED):
    if _name != "ssl_context":  # connect() replaces it
        setattr(_Connection, _name, ConnectionOption(_name))


class _Closing:
    """Goes before the class of a manager: its pools check pins, and closing the last client closes the user's store."""

    pin_lease: Lease
    pin_pools: PinnedPools

    def urlopen(self, method: str, url: str, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - urllib3's own
        """Like urllib3's, which also calls it for each redirect.

        Raises:
            SSLError: if urllib3 writes the name of a Known Pinned Host as another name.
        """
        inherited: Any = super()
        if not url.isascii():
            self.pin_pools.hold(host_of_url(url), parse_url(url).host)
        return inherited.urlopen(method, url, *args, **options)

    def connection_from_pool_key(self, pool_key: Any, request_context: Mapping[str, Any]) -> Any:  # noqa: ANN401 - urllib3's own
        """Like urllib3's.

        Raises:
            UnenforceableContext: if ``pool_classes_by_scheme`` was set, and the pool would not check the pins.
            SSLError: if ``key_fn_by_scheme`` was set, and gives a Known Pinned Host the pool of another host.
        """
        inherited: Any = super()
        scheme, host = request_context["scheme"].lower(), request_context["host"]  # urllib3 removes them
        pool = inherited.connection_from_pool_key(pool_key, request_context=request_context)
        if scheme == "https":
            self.pin_pools.hold(host, pool.host)
        if scheme == "https" and not self.pin_pools.made(pool):
            raise UnenforceableContext(
                f"a {type(pool).__name__} would connect without checking the pins; set pool_classes_by_scheme on a "
                "manager of your own, and give that one to note_responses(manager, store)"
            )
        return pool

    def clear(self) -> None:
        """Like urllib3's."""
        inherited: Any = super()
        inherited.clear()
        self.pin_lease.end()


class _PoolManager(_Closing, urllib3.PoolManager):
    pass


class _ProxyManager(_Closing, urllib3.ProxyManager):
    pass


def _load_once(context: ssl.SSLContext, options: dict[str, Any]) -> None:
    """Load into the manager's context what urllib3 would load at each connection."""
    asked = TLSOptions.of(options)
    asked._replace(**dict.fromkeys(("cert_reqs", *LOADED))).refuse_beside_a_context()
    if options.get("cert_reqs") is not None:
        context.verify_mode = resolve_cert_reqs(options["cert_reqs"])
    asked.load(context)
    for name in ("cert_reqs", *LOADED):
        options.pop(name, None)


def _refuse_pyopenssl() -> None:
    if urllib3_ssl.IS_PYOPENSSL:
        raise UnenforceableContext(
            "pins cannot be enforced on pyOpenSSL, which urllib3.contrib.pyopenssl.inject_into_urllib3() uses instead "
            "of ssl; undo that with:  urllib3.contrib.pyopenssl.extract_from_urllib3()"
        )
