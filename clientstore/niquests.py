"""niquests: sessions and adapters that note and enforce, synchronous and asynchronous.

HTTP/3 is switched off: it does not pass through ``ssl``. niquests brings a fork of urllib3, which takes the place of
urllib3 itself, so it is in none of dynpin's extras and is tested in an environment of its own.
"""

# It is in no environment that is type-checked, for the same reason.
# pyright: reportMissingImports=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUntypedBaseClass=false, reportUnknownArgumentType=false, reportUnknownParameterType=false
from __future__ import annotations

import ssl
from typing import Any, ClassVar

import niquests
import niquests.adapters

from dynpin.errors import UnenforceableContext
from dynpin.header import ENFORCE_NAME, REPORT_ONLY_NAME

from .enforcement import Peer, peer_of, refuse_certificate, refuse_setting, request_site, same_roots
from .options import Lease, hardener, split_options
from .responses import note_response
from .store import PinStore

__all__ = ["PinnedAdapter", "PinnedAsyncAdapter", "PinnedAsyncSession", "PinnedSession"]

_HTTPS_PORT = 443
# What a Session is told of its connections goes to its adapter, too.
_OF_ADAPTERS = (
    *("disable_http1", "disable_http2", "disable_http3", "disable_ipv4", "disable_ipv6", "source_address"),
    *("pool_connections", "pool_maxsize", "happy_eyeballs", "keepalive_delay", "keepalive_idle_window"),
    *("revocation_configuration", "allow_incoming_cookies", "tls_configuration"),
)


class _Noting:
    """What a connection of either kind does besides its own: harden its context, remember its peer, note."""

    pin_adapter: _Pinned
    ssl_context: ssl.SSLContext | None
    cert_reqs: int | str | None
    ca_certs: str | None
    ca_cert_dir: str | None
    ca_cert_data: str | bytes | None
    cert_file: str | None
    cert_data: str | bytes | None
    ssl_minimum_version: ssl.TLSVersion | None
    ssl_maximum_version: ssl.TLSVersion | None
    ciphers: str | None
    host: str
    port: int | None
    sock: object
    proxy: Any
    proxy_config: Any
    proxy_is_forwarding: bool

    _pin_peer: Peer | None = None
    _pin_tunnel: tuple[str, int] | None = None

    def set_tunnel(self, host: str, port: int | None = None, headers: Any = None, scheme: str = "http") -> None:  # noqa: ANN401 - niquests' own
        """As urllib3's: behind CONNECT the site is the tunnel's end."""
        inherited: Any = super()
        inherited.set_tunnel(host, port, headers, scheme)
        self._pin_tunnel = host, port or _HTTPS_PORT

    def _pin_harden(self) -> None:
        verified = self.cert_reqs in (None, "CERT_REQUIRED", ssl.CERT_REQUIRED)
        context = self.pin_adapter.pin_context
        if self.proxy is not None and self.proxy.scheme == "https":
            # Its TLS has a context of its own, which must not show the site's client certificate.
            proxy_context = self.proxy_config.ssl_context or (
                same_roots(context) if context is not None and verified else self._pin_proxy_context(verified)
            )
            self.pin_adapter.pin_harden(proxy_context)
            self.proxy_config = self.proxy_config._replace(ssl_context=proxy_context)
        if context is not None and verified:
            if self.cert_file or self.cert_data:
                refuse_certificate()
            if self.ssl_minimum_version or self.ssl_maximum_version or self.ciphers:
                refuse_setting("tls_configuration")
            # niquests would load its default roots into the caller's context.
            self.ca_certs = self.ca_cert_dir = self.ca_cert_data = None
        else:
            # One for each connection, as niquests has it: the roots and the certificate of a request are loaded there.
            context = self._pin_bare_context(verified)
        self.ssl_context = self.pin_adapter.pin_harden(context)

    def _pin_proxy_context(self, verified: bool) -> ssl.SSLContext:
        context = self._pin_bare_context(verified)
        # niquests loads the roots of a request into no context that it is given for a proxy.
        roots = {"cafile": self.ca_certs, "capath": self.ca_cert_dir, "cadata": self.ca_cert_data}
        if any(roots.values()):
            context.load_verify_locations(**roots)
        elif verified:
            context.load_default_certs()
        return context

    def _pin_bare_context(self, verified: bool) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if not verified:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        # niquests sets what its TLSConfiguration says in the contexts that it makes itself.
        if self.ssl_minimum_version:
            context.minimum_version = self.ssl_minimum_version
        if self.ssl_maximum_version:
            context.maximum_version = self.ssl_maximum_version
        if self.ciphers:
            context.set_ciphers(self.ciphers)
        return context

    def _pin_remember(self) -> None:
        # TLS inside TLS, and asynchronous sockets, have an object of their own around the one that counts.
        self._pin_peer = peer_of(self.sock) or peer_of(getattr(self.sock, "sslobj", None))
        if self._pin_peer is None and not self.proxy_is_forwarding:
            raise UnenforceableContext(
                f"the connection to {self._pin_site()[0]} is not held against the pins, since it does not pass through "
                "ssl; leave HTTP/3 and other TLS backends switched off"
            )

    def _pin_site(self) -> tuple[str, int]:
        return self._pin_tunnel or (self.host, self.port or _HTTPS_PORT)

    def _pin_note(self, response: Any) -> None:  # noqa: ANN401 - niquests' own
        if not self.proxy_is_forwarding:
            host, port = self._pin_site()
            note_response(
                self.pin_adapter.pin_store,
                host,
                self._pin_peer,
                response.headers.getlist(ENFORCE_NAME),
                response.headers.getlist(REPORT_ONLY_NAME),
                port=port,
            )


class _NotingConnection(_Noting):
    def connect(self) -> None:
        inherited: Any = super()
        self._pin_harden()
        token = request_site.set(self._pin_site())
        try:
            inherited.connect()
        finally:
            request_site.reset(token)
        self._pin_remember()

    def getresponse(self, **options: Any) -> Any:  # noqa: ANN401 - niquests' own
        inherited: Any = super()
        response = inherited.getresponse(**options)
        self._pin_note(response)
        return response


class _NotingAsyncConnection(_Noting):
    async def connect(self) -> None:
        inherited: Any = super()
        self._pin_harden()
        token = request_site.set(self._pin_site())
        try:
            await inherited.connect()
        finally:
            request_site.reset(token)
        self._pin_remember()

    async def getresponse(self, **options: Any) -> Any:  # noqa: ANN401 - niquests' own
        inherited: Any = super()
        response = await inherited.getresponse(**options)
        self._pin_note(response)
        return response


class _Pinned:
    """What the two adapters share."""

    pin_connection: ClassVar[type[_Noting]]

    def __init__(
        self,
        store: PinStore | None = None,
        *,
        context: ssl.SSLContext | None = None,
        **options: Any,  # noqa: ANN401 - PinOptions, and the library's own
    ) -> None:
        if not options.setdefault("disable_http3", True):
            raise UnenforceableContext("HTTP/3 does not pass through ssl, so pins cannot be enforced on it")
        self._pin_lease = Lease(store, self)
        self.pin_store = self._pin_lease.store
        self.pin_context = context
        self.pin_harden = hardener(self.pin_store, split_options(options))
        super().__init__(**options)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - niquests' own
        inherited: Any = super()
        inherited.init_poolmanager(*args, **options)
        self._pin_connections(getattr(self, "poolmanager"))  # noqa: B009 - of the class beside this one

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:  # noqa: ANN401 - niquests' own
        inherited: Any = super()
        manager = inherited.proxy_manager_for(proxy, **options)
        self._pin_connections(manager)
        return manager

    def _pin_connections(self, manager: Any) -> None:  # noqa: ANN401 - niquests' own
        pool = manager.pool_classes_by_scheme["https"]
        if not issubclass(pool.ConnectionCls, _Noting):
            connection = type("NotingConnection", (self.pin_connection, pool.ConnectionCls), {"pin_adapter": self})
            noting = type("NotingPool", (pool,), {"ConnectionCls": connection})
            manager.pool_classes_by_scheme = {**manager.pool_classes_by_scheme, "https": noting}


class PinnedAdapter(_Pinned, niquests.adapters.HTTPAdapter):  # type: ignore[misc, unused-ignore] # Any where it is absent
    """A transport adapter to mount on ``https://``: notes what responses pin, refuses any other key before a byte.

    Args:
        store: the Known Pinned Hosts; None for the user's own store.
        context: a context of your own, which is hardened and used whatever bundle ``verify`` names; None for what
            niquests makes of ``verify`` and ``cert``. A request with ``cert`` is refused with it by TypeError: the
            context would show that client certificate to other hosts, too.
        options: everything else that niquests' HTTPAdapter takes; ``disable_http3=False`` is refused.
    """

    pin_connection = _NotingConnection


class PinnedAsyncAdapter(_Pinned, niquests.adapters.AsyncHTTPAdapter):  # type: ignore[misc, unused-ignore] # see above
    """The same for an AsyncSession."""

    pin_connection = _NotingAsyncConnection


class _PinnedSession:
    """What the two sessions share."""

    pin_adapter: ClassVar[type[_Pinned]]
    _pin_made = False

    def __init__(
        self,
        store: PinStore | None = None,
        *,
        context: ssl.SSLContext | None = None,
        **options: Any,  # noqa: ANN401 - PinOptions, and the library's own
    ) -> None:
        options.setdefault("disable_http3", True)
        pins = split_options(options)
        inherited: Any = super()
        inherited.__init__(**options)
        made: Any = self
        of_adapter = {name: options[name] for name in _OF_ADAPTERS if name in options}
        self.mount(
            "https://",
            self.pin_adapter(
                store,
                context=context,
                **pins,
                max_retries=made.retries,
                resolver=made.resolver,
                **of_adapter,
            ),
        )
        self._pin_made = True

    def mount(self, prefix: str, adapter: Any) -> None:  # noqa: ANN401 - niquests' own
        # A session that is used after it was closed mounts new adapters of niquests' own.
        if self._pin_made and prefix.lower().startswith("https:") and not isinstance(adapter, _Pinned):
            raise UnenforceableContext(
                f"an adapter for {prefix} that is not enforced would connect past the pins: mount a PinnedAdapter, "
                "and make a new session where this one was closed"
            )
        inherited: Any = super()
        inherited.mount(prefix, adapter)


class PinnedSession(_PinnedSession, niquests.Session):  # type: ignore[misc, unused-ignore] # Any where it is absent
    """A niquests.Session that notes what responses pin and refuses any other key before a byte is sent.

    A refusal is a :class:`niquests.exceptions.SSLError`; :func:`dynpin.clientstore.pin_violation` finds the
    :class:`~dynpin.PinValidationError` in it.

    Args:
        store: the Known Pinned Hosts; None for the user's own store.
        context: see :class:`PinnedAdapter`.
        options: everything else that niquests.Session takes; ``disable_http3=False`` is refused.
    """

    pin_adapter = PinnedAdapter


class PinnedAsyncSession(_PinnedSession, niquests.AsyncSession):  # type: ignore[misc, unused-ignore] # see above
    """A niquests.AsyncSession; everything is as in :class:`PinnedSession`."""

    pin_adapter = PinnedAsyncAdapter
