"""urllib3 2: pool managers that note and enforce pins. The adapter for requests uses them too."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, Unpack
from weakref import WeakSet

import urllib3
import urllib3.util.ssl_ as urllib3_ssl
from urllib3.connection import HTTPSConnection
from urllib3.exceptions import SSLError
from urllib3.util.ssl_ import create_urllib3_context, resolve_cert_reqs, resolve_ssl_version
from urllib3.util.url import parse_url

from dynpin.errors import UnenforceableContext

from .doubles import sockets_are_doubles
from .enforcement import refuse_setting
from .http_client import NotedConnection
from .names import Names, refuse_assert_hostname
from .options import Harden, Lease, PinOptions, hardener, split_options
from .store import PinStore

__all__ = ["ManagerOptions", "PinnedPools", "note_responses", "pinned_pool_manager"]

_VERSIONS = ("ssl_version", "ssl_minimum_version", "ssl_maximum_version")
# The options that urllib3 loads into a connection's context when it connects, even if others use that context.
_LOADED = ("ca_certs", "ca_cert_dir", "ca_cert_data", "cert_file", "key_file", "key_password")
_OF_A_SITE = ("cert_file", "key_file", "key_password")
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
    _refuse_assertions(given.get("assert_hostname"), given.get("assert_fingerprint"))
    roots = _TLS.of(given)
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
    return manager


def note_responses(manager: urllib3.PoolManager, store: PinStore) -> None:
    """Let a pool manager of your own note the https responses of its connections: a SOCKS proxy's, for example.

    Its context enforces the pins: give it ``ssl_context=enforce(context, store)``.

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

    def _connection_class(self, made: type[HTTPSConnection]) -> type[HTTPSConnection]:
        if issubclass(made, _Connection):
            return made
        return type("PinnedConnection", (_Connection, made), {"pin_pools": self})

    def context(self, asked: _TLS) -> ssl.SSLContext | None:
        """The enforced context for the TLS options of a connection; None for urllib3's own, for a test double."""
        if asked.ssl_context is not None:
            asked.refuse_beside_a_context()
            return self.enforced(asked.ssl_context)
        # Without `harden` urllib3 makes a context, and the connection is refused after it has connected.
        return None if self._harden is None or sockets_are_doubles() else self._made(asked, asked.stamps())

    def _make(self, asked: _TLS, stamps: tuple[int | None, ...]) -> ssl.SSLContext:
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


class _TLS(NamedTuple):
    """The TLS options of a connection, as in urllib3."""

    ssl_context: ssl.SSLContext | None
    cert_reqs: int | str | None
    ca_certs: str | None
    ca_cert_dir: str | None
    ca_cert_data: str | bytes | None
    cert_file: str | None
    key_file: str | None
    key_password: str | None
    ssl_version: int | str | None
    ssl_minimum_version: ssl.TLSVersion | None
    ssl_maximum_version: ssl.TLSVersion | None

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> _TLS:
        asked = cls(*(options.get(name) for name in cls._fields))
        return asked._replace(ca_certs=_expanded(asked.ca_certs), ca_cert_dir=_expanded(asked.ca_cert_dir))

    def for_a_proxy(self) -> _TLS:
        """The options for an https proxy: its context must not show the site's client certificate."""
        return self._replace(ssl_context=None, **dict.fromkeys(_OF_A_SITE))

    def stamps(self) -> tuple[int | None, ...]:
        """The modification times of its files: a renewed file is used from the next connection on, as with urllib3."""
        return tuple(map(_changed_at, (self.ca_certs, self.cert_file, self.key_file)))

    def context(self) -> ssl.SSLContext:
        """The context that urllib3 itself makes for these options."""
        context = create_urllib3_context(
            ssl_version=None if self.ssl_version is None else resolve_ssl_version(self.ssl_version),
            ssl_minimum_version=self.ssl_minimum_version,
            ssl_maximum_version=self.ssl_maximum_version,
            cert_reqs=resolve_cert_reqs(self.cert_reqs),
        )
        if not self.load(context):
            context.load_default_certs()
        return context

    def load(self, context: ssl.SSLContext) -> bool:
        """Load roots and client certificate; return whether the options name any roots."""
        if self.cert_file:
            context.load_cert_chain(self.cert_file, self.key_file, self.key_password or _no_password)
        if not (self.ca_certs or self.ca_cert_dir or self.ca_cert_data):
            return False
        try:
            context.load_verify_locations(self.ca_certs, self.ca_cert_dir, self.ca_cert_data)
        except OSError as error:
            raise SSLError(error) from error
        return True

    def refuse_beside_a_context(self) -> None:
        """Refuse options that urllib3 would set permanently in the caller's own context, which serves all pools."""
        context = self.ssl_context
        named = [name for name in _LOADED if getattr(self, name)]
        if context is not None and self.cert_reqs is not None:
            named += ["cert_reqs"] if resolve_cert_reqs(self.cert_reqs) != context.verify_mode else []
        for name in _VERSIONS:
            if getattr(self, name) is not None:
                refuse_setting(name)
        if named:
            raise TypeError(
                f"{named[0]}= for one pool would change your own context, which serves every host: set it there "
                "yourself, or make another client for these requests"
            )


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
    _pin_tls: _TLS
    _pin_asserted: tuple[str | bool | None, str | None]

    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - urllib3's own
        # Here and not in connect(): vcrpy makes a connection of its own with these options, and may connect it later.
        # urllib3 would load the options into the context, and loosen it to compare a name itself.
        asked = _TLS.of(options)
        asserted = options.pop("assert_hostname", None), options.pop("assert_fingerprint", None)
        context = self.pin_pools.context(asked)
        if context is not None:
            for name in _TLS._fields:
                options.pop(name, None)
            options["ssl_context"] = context
        super().__init__(*args, **options)  # pyright: ignore[reportUnknownMemberType] # urllib3's ssl may be None
        self._pin_tls, self._pin_asserted = asked, asserted
        self.pin_store, self.pin_names = self.pin_pools.store, self.pin_pools.names

    def connect(self) -> None:
        """Like urllib3's, with an enforced context for the site and for an https proxy.

        Raises:
            UnenforceableContext: if urllib3 would verify other than with TLS.
            TypeError: for options that would change a context of the caller's own.
        """
        _refuse_assertions(*self._pin_asserted, self.server_hostname or self._pin_site()[0])
        context = self.pin_pools.context(self._pin_tls)  # again, since files may have been renewed
        if self.proxy is not None and self.proxy.scheme == "https":
            config: Any = self.proxy_config
            asked = _TLS.of({"ssl_context": config.ssl_context}) if config.ssl_context else self._pin_tls.for_a_proxy()
            proxy_context = self.pin_pools.context(asked)
            _refuse_assertions(config.assert_hostname, config.assert_fingerprint, self.host)
            self.proxy_config = config._replace(ssl_context=proxy_context, assert_hostname=None)
            if self.proxy_is_forwarding:
                context = proxy_context
        if context is not None:
            self.ssl_context, self.cert_reqs = context, context.verify_mode
        super().connect()


class _Closing:
    """Goes before the class of a manager: closing the last client also closes the user's own store."""

    pin_lease: Lease

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
    asked = _TLS.of(options)
    asked._replace(**dict.fromkeys(("cert_reqs", *_LOADED))).refuse_beside_a_context()
    if options.get("cert_reqs") is not None:
        context.verify_mode = resolve_cert_reqs(options["cert_reqs"])
    asked.load(context)
    for name in ("cert_reqs", *_LOADED):
        options.pop(name, None)


def _refuse_assertions(name: object, fingerprint: object, verified: str | None = None) -> None:
    refuse_assert_hostname(name, verified)
    if fingerprint:
        raise UnenforceableContext(
            "assert_fingerprint= makes urllib3 switch off the verification of TLS; pin the certificate itself:  "
            "dynpin hosts pin HOST --certificate FINGERPRINT"
        )


def _refuse_pyopenssl() -> None:
    if urllib3_ssl.IS_PYOPENSSL:
        raise UnenforceableContext(
            "pins cannot be enforced on pyOpenSSL, which urllib3.contrib.pyopenssl.inject_into_urllib3() uses instead "
            "of ssl; undo that with:  urllib3.contrib.pyopenssl.extract_from_urllib3()"
        )


def _no_password() -> NoReturn:
    # urllib3's own message. OpenSSL would ask for the password on the terminal.
    raise SSLError("Client private key is encrypted, password is required")


def _expanded(path: str | None) -> str | None:
    return path and str(Path(path).expanduser())


def _changed_at(path: str | None) -> int | None:
    try:
        return Path(path).stat().st_mtime_ns if path else None
    except OSError:
        return None  # urllib3 reports the error when it loads the file
