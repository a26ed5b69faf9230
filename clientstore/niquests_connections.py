"""niquests: the additions to its connections, synchronous and asynchronous."""

# niquests is not installed in the environment for type checks; see niquests.py.
# pyright: reportMissingImports=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUntypedBaseClass=false, reportUnknownArgumentType=false, reportUnknownParameterType=false
from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any, Protocol

from dynpin.errors import UnenforceableContext
from dynpin.header import ENFORCE_NAME, REPORT_ONLY_NAME

from .enforcement import Peer, peer_of, refuse_certificate, refuse_setting, request_site, same_roots
from .names import Names, host_of_field, is_for, refuse_assert_hostname
from .options import Harden
from .responses import note_response, note_response_async
from .store import PinStore

__all__ = ["NotedAsyncConnection", "NotedConnection", "Noting"]

_HTTPS_PORT = 443


class Pinned(Protocol):
    """The values that a connection needs from its adapter."""

    pin_store: PinStore
    pin_names: Names
    pin_context: ssl.SSLContext | None
    pin_harden: Harden


class Noting:
    """The additions to both kinds of connections: harden the context, remember the peer, note pins."""

    pin_adapter: Pinned
    ssl_context: ssl.SSLContext | None
    cert_reqs: int | str | None
    ca_certs: str | None
    ca_cert_dir: str | None
    ca_cert_data: str | bytes | None
    cert_file: str | None
    cert_data: str | bytes | None
    assert_hostname: str | bool | None
    server_hostname: str | None
    ssl_minimum_version: ssl.TLSVersion | None
    ssl_maximum_version: ssl.TLSVersion | None
    ciphers: str | None
    host: str
    port: int | None
    sock: Any
    proxy: Any
    proxy_config: Any
    proxy_is_forwarding: bool

    _pin_peer: Peer | None = None
    _pin_tunnel: tuple[str, int] | None = None

    def set_tunnel(self, host: str, port: int | None = None, headers: Any = None, scheme: str = "http") -> None:  # noqa: ANN401 - niquests' own
        """Like urllib3's. Behind CONNECT the site is the end of the tunnel."""
        inherited: Any = super()
        inherited.set_tunnel(host, port, headers, scheme)
        self._pin_tunnel = host, port or _HTTPS_PORT

    def _pin_harden(self) -> None:
        self._pin_peer = None
        verified = self.cert_reqs in (None, "CERT_REQUIRED", ssl.CERT_REQUIRED)
        context = self.pin_adapter.pin_context
        refuse_assert_hostname(self.assert_hostname, self.server_hostname or self._pin_site()[0])
        self.assert_hostname = None
        if self.proxy is not None and self.proxy.scheme == "https":
            # A proxy's TLS has its own context, which must not show the site's client certificate.
            proxy_context = self.proxy_config.ssl_context or (
                same_roots(context) if context is not None and verified else self._pin_proxy_context(verified)
            )
            self.pin_adapter.pin_harden(proxy_context)
            refuse_assert_hostname(self.proxy_config.assert_hostname, self.host)
            self.proxy_config = self.proxy_config._replace(ssl_context=proxy_context, assert_hostname=None)
        if context is not None and verified:
            if self.cert_file or self.cert_data:
                refuse_certificate()
            if self.ssl_minimum_version or self.ssl_maximum_version or self.ciphers:
                refuse_setting("tls_configuration")
            # niquests would load its default roots into the caller's context, and change its verification.
            self.cert_reqs = context.verify_mode
            self.ca_certs = self.ca_cert_dir = self.ca_cert_data = None
        else:
            # One context for each connection, as in niquests: it loads a request's roots and certificate into it.
            context = self._pin_bare_context(verified)
        self.ssl_context = self.pin_adapter.pin_harden(context)

    def _pin_proxy_context(self, verified: bool) -> ssl.SSLContext:
        context = self._pin_bare_context(verified)
        # niquests does not load a request's roots into a context that it was given for a proxy.
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
        # niquests applies its TLSConfiguration only to contexts that it makes itself.
        if self.ssl_minimum_version:
            context.minimum_version = self.ssl_minimum_version
        if self.ssl_maximum_version:
            context.maximum_version = self.ssl_maximum_version
        if self.ciphers:
            context.set_ciphers(self.ciphers)
        return context

    def _pin_remember(self) -> None:
        try:
            self._pin_peer = self._pin_proved()
        except BaseException:
            self.sock.close()
            raise

    def _pin_proved(self) -> Peer:
        # For TLS inside TLS, and for asynchronous sockets, there is an outer object around the one that counts.
        peer = peer_of(self.sock) or peer_of(getattr(self.sock, "sslobj", None))
        site = self._pin_site()[0]
        if peer is None:
            raise UnenforceableContext(
                f"the connection to {site} is not checked against the pins, since it does not use ssl; leave HTTP/3 "
                "and other TLS backends switched off"
            )
        self.pin_adapter.pin_names.hold([site], peer.host)
        return peer

    def _pin_site(self) -> tuple[str, int]:
        return self._pin_tunnel or (self.host, self.port or _HTTPS_PORT)

    def _pin_hold(self, headers: Mapping[str, str] | None) -> None:
        """Run before a request is sent: compare the name in its Host field with that of TLS."""
        if self._pin_peer is not None and not self.proxy_is_forwarding:
            fields = [value for name, value in (headers or {}).items() if _text(name).lower() == "host"]
            self.pin_adapter.pin_names.hold(map(host_of_field, map(_text, fields)), self._pin_peer.host)

    def _pin_fields(self, response: Any, promise: Any) -> tuple[tuple[str, ...], tuple[str, ...]] | None:  # noqa: ANN401 - niquests' own
        """The fields to note; None if this is not the response to a request for this https origin."""
        asked = (promise or response._original_response.from_promise).request_headers
        pseudo = {name: value.decode("latin-1") for name, value in asked if name.startswith(b":")}
        if self.proxy_is_forwarding or not pseudo[b":path"].startswith(("/", "*")):
            return None
        if not is_for(self._pin_site()[0], pseudo.get(b":authority")):
            return None
        fields = response.headers
        return tuple(fields.getlist(ENFORCE_NAME)), tuple(fields.getlist(REPORT_ONLY_NAME))


class NotedConnection(Noting):
    """Goes before the class of a synchronous connection."""

    def connect(self) -> None:
        """Like niquests', with an enforced context."""
        inherited: Any = super()
        self._pin_harden()
        token = request_site.set(self._pin_site())
        try:
            inherited.connect()
        finally:
            request_site.reset(token)
        self._pin_remember()

    def request(self, method: str, url: str, body: Any = None, headers: Any = None, **options: Any) -> Any:  # noqa: ANN401 - niquests' own
        """Like niquests', after the name in the Host field was compared with that of TLS."""
        inherited: Any = super()
        self._pin_hold(headers)
        return inherited.request(method, url, body, headers, **options)

    def getresponse(self, *, promise: Any = None, **options: Any) -> Any:  # noqa: ANN401 - niquests' own
        """Like niquests', and the response's pins are noted."""
        inherited: Any = super()
        response = inherited.getresponse(promise=promise, **options)
        fields = self._pin_fields(response, promise)
        if fields is not None:
            host, port = self._pin_site()
            note_response(self.pin_adapter.pin_store, host, self._pin_peer, *fields, port=port)
        return response


class NotedAsyncConnection(Noting):
    """Goes before the class of an asynchronous connection; it writes to the disk in a thread."""

    async def connect(self) -> None:
        """Like niquests', with an enforced context."""
        inherited: Any = super()
        self._pin_harden()
        token = request_site.set(self._pin_site())
        try:
            await inherited.connect()
        finally:
            request_site.reset(token)
        self._pin_remember()

    async def request(self, method: str, url: str, body: Any = None, headers: Any = None, **options: Any) -> Any:  # noqa: ANN401 - niquests' own
        """Like niquests', after the name in the Host field was compared with that of TLS."""
        inherited: Any = super()
        self._pin_hold(headers)
        return await inherited.request(method, url, body, headers, **options)

    async def getresponse(self, *, promise: Any = None, **options: Any) -> Any:  # noqa: ANN401 - niquests' own
        """Like niquests', and the response's pins are noted."""
        inherited: Any = super()
        response = await inherited.getresponse(promise=promise, **options)
        fields = self._pin_fields(response, promise)
        if fields is not None:
            host, port = self._pin_site()
            await note_response_async(self.pin_adapter.pin_store, host, self._pin_peer, *fields, port=port)
        return response


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value
