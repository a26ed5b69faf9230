"""urllib3 2: pool managers that note and enforce; what the adapter for requests stands on too."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

import urllib3
from urllib3.connection import HTTPSConnection
from urllib3.response import HTTPResponse
from urllib3.util.ssl_ import create_urllib3_context, resolve_cert_reqs, resolve_ssl_version
from urllib3.util.url import parse_url

from dynpin.errors import UnenforceableContext
from dynpin.header import ENFORCE_NAME, REPORT_ONLY_NAME

from .enforcement import Peer, peer_of, refuse_setting, request_site
from .options import Lease, hardener, split_options
from .responses import note_response
from .store import PinStore

__all__ = ["note_responses", "pinned_pool_manager"]

_HTTPS_PORT = 443
_VERSIONS = ("ssl_version", "ssl_minimum_version", "ssl_maximum_version")


def pinned_pool_manager(
    store: PinStore | None = None,
    *,
    ssl_context: ssl.SSLContext | None = None,
    proxy_url: str | None = None,
    **options: Any,  # noqa: ANN401 - PinOptions, and the library's own
) -> urllib3.PoolManager:
    """A :class:`urllib3.PoolManager` that notes what responses pin and refuses any other key before a byte is sent.

    A refusal is a :class:`urllib3.exceptions.MaxRetryError` around an ``SSLError``, or the ``SSLError`` itself without
    retries; :func:`dynpin.clientstore.pin_violation` finds the :class:`~dynpin.PinValidationError` in it.

    Args:
        store: the Known Pinned Hosts; None for the user's own store.
        ssl_context: a context of your own, which is hardened; None for one with the system's roots.
        proxy_url: go through this HTTP proxy, by CONNECT. The TLS of an https proxy is held against the pins of the
            proxy's own name; its context is ``proxy_ssl_context``, or one with the roots that `options` name.
        options: everything else that :class:`urllib3.PoolManager` takes, but ``use_forwarding_for_https``.

    Raises:
        UnenforceableContext: with ``use_forwarding_for_https``, which leaves the sites' TLS to the proxy.
        TypeError: with the ``ssl_…version`` of urllib3 beside an `ssl_context`, on which they would have no effect.
    """
    how = split_options(options)
    _refuse_forwarding(options.get("use_forwarding_for_https"))
    if ssl_context is None:
        ssl_context = _context(options)
    else:
        for name in _VERSIONS:
            if options.get(name) is not None:
                refuse_setting(name)
    contexts = [ssl_context]
    if proxy_url is not None and parse_url(proxy_url).scheme == "https":
        options["proxy_ssl_context"] = options.get("proxy_ssl_context") or _proxy_context(options)
        contexts.append(options["proxy_ssl_context"])
    manager = (
        urllib3.PoolManager(ssl_context=ssl_context, **options)
        if proxy_url is None
        else urllib3.ProxyManager(proxy_url, ssl_context=ssl_context, **options)
    )
    pins = Lease(store, manager).store
    harden = hardener(pins, how)
    for context in contexts:
        harden(context)
    note_responses(manager, pins)
    return manager


def _context(options: Mapping[str, Any]) -> ssl.SSLContext:
    """What urllib3 itself makes for these options; it loads the roots that they name when it connects."""
    version = options.get("ssl_version")
    context = create_urllib3_context(
        ssl_version=None if version is None else resolve_ssl_version(version),
        ssl_minimum_version=options.get("ssl_minimum_version"),
        ssl_maximum_version=options.get("ssl_maximum_version"),
        cert_reqs=resolve_cert_reqs(options.get("cert_reqs")),
    )
    if not any(options.get(name) for name in ("ca_certs", "ca_cert_dir", "ca_cert_data")):
        context.load_default_certs()
    return context


def _proxy_context(options: Mapping[str, Any]) -> ssl.SSLContext:
    """What urllib3 itself makes for the TLS of a proxy; into a context that it is given it loads no roots there."""
    context = _context(options)
    roots = {
        "cafile": options.get("ca_certs"),
        "capath": options.get("ca_cert_dir"),
        "cadata": options.get("ca_cert_data"),
    }
    if any(roots.values()):
        context.load_verify_locations(**roots)
    return context


def note_responses(manager: urllib3.PoolManager, store: PinStore) -> None:
    """Have a pool manager note the https responses of its connections; enforcement is its context's matter.

    Raises:
        UnenforceableContext: where the manager was made with ``use_forwarding_for_https``.
    """
    _refuse_forwarding(manager.proxy_config is not None and manager.proxy_config.use_forwarding_for_https)

    # Of the classes that the manager has: a SOCKS proxy's connect in their own way.
    pool: Any = manager.pool_classes_by_scheme["https"]  # a class whose ConnectionCls type checkers do not know
    made = pool.ConnectionCls
    if issubclass(made, _NotingConnection) and made.pin_store is store:
        return  # requests asks for the manager of a proxy before each request
    bases = (made,) if issubclass(made, _NotingConnection) else (_NotingConnection, made)
    noting = type("NotingPool", (pool,), {"ConnectionCls": type("NotingConnection", bases, {"pin_store": store})})
    manager.pool_classes_by_scheme = {**manager.pool_classes_by_scheme, "https": noting}


def _refuse_forwarding(asked: bool | None) -> None:
    if asked:
        raise UnenforceableContext(
            "use_forwarding_for_https=True has the proxy speak TLS with the sites, where nothing is held against their "
            "pins; leave it out, and the proxy tunnels by CONNECT"
        )


class _NotingConnection(HTTPSConnection):
    """Remembers what its handshake proved: with ``Connection: close`` the socket is gone when a response is read."""

    pin_store: PinStore
    # Named so that no private name of the base class is hit.
    _pin_peer: Peer | None = None
    _pin_tunnel: tuple[str, int] | None = None

    def set_tunnel(
        self,
        host: str,
        port: int | None = None,
        headers: Mapping[str, str] | None = None,
        scheme: str = "http",
    ) -> None:
        """As urllib3's: behind CONNECT the site is the tunnel's end."""
        super().set_tunnel(host, port, headers, scheme)
        self._pin_tunnel = host, port or _HTTPS_PORT

    def connect(self) -> None:
        """As urllib3's; a report of what fails carries the port of the site, also behind a proxy."""
        token = request_site.set(self._pin_site())
        try:
            super().connect()
        finally:
            request_site.reset(token)
        # TLS inside TLS has an object of its own around the one that counts.
        self._pin_peer = peer_of(self.sock) or peer_of(getattr(self.sock, "sslobj", None))
        # No request has been sent yet: a pool may have been given another context, or an old requests none at all.
        if self._pin_peer is None and not self.proxy_is_forwarding:
            self.close()
            raise UnenforceableContext(
                f"the connection to {self._pin_site()[0]} is not held against the pins, since its ssl_context is not "
                "that of its pool manager; give the context to pinned_pool_manager, or to PinnedSession(context=...)"
            )

    def getresponse(self) -> HTTPResponse:  # type: ignore[override] # as urllib3 itself has it
        """As urllib3's, and the response's pins are noted."""
        response = super().getresponse()
        # What a proxy forwards came from an http:// URL, or over TLS that the proxy spoke, not this connection.
        if not self.proxy_is_forwarding:
            host, port = self._pin_site()
            note_response(
                self.pin_store,
                host,
                self._pin_peer,
                # The list: headers["…"] would join several fields by a comma.
                response.headers.getlist(ENFORCE_NAME),
                response.headers.getlist(REPORT_ONLY_NAME),
                port=port,
            )
        return response

    def _pin_site(self) -> tuple[str, int]:
        return self._pin_tunnel or (self.host, self.port or _HTTPS_PORT)
