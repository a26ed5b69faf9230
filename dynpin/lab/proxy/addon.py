"""The add-on: the hooks in which mitmproxy notes and enforces pins."""

# mitmproxy is not installed in the environment for type checks.
# pyright: reportMissingImports=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
from __future__ import annotations

import asyncio
import logging
import ssl
from collections import Counter
from collections.abc import MutableMapping
from functools import partial
from typing import Any, cast
from weakref import WeakKeyDictionary

from mitmproxy import connection, ctx, http, tls
from mitmproxy.proxy import server_hooks
from OpenSSL import SSL

from dynpin.clientstore import Peer, PinStore, Reporter, ReportQueue, note_response_async
from dynpin.clientstore.enforcement import Enforcement, PrivateRoots, explain_violation
from dynpin.clientstore.reports import ReportMode
from dynpin.errors import InvalidHost, PinValidationError, StoreError
from dynpin.header import ENFORCE_NAME, REPORT_ONLY_NAME
from dynpin.hosts import canonical_host
from dynpin.lab.proxy.connection import GuardedConnection, ShutConnection
from dynpin.lab.proxy.page import MISDIRECTED, Refusal
from dynpin.validation import Validation

__all__ = ["PinningAddon"]

logger = logging.getLogger("dynpin.lab.proxy")

Address = tuple[str, int]
_Refused = tuple[Refusal, Validation | None]


class PinningAddon:
    """A mitmproxy add-on that notes sites' pins, and refuses wrong keys before it forwards a request.

    >>> addons = [PinningAddon(PinStore())]  # doctest: +SKIP
    ... # in a file for `mitmdump -s FILE`

    It checks every TLS connection that mitmproxy makes to a server over TCP. A connection over UDP (HTTP/3) is refused,
    since it does not use OpenSSL.

    Args:
        store: the Known Pinned Hosts; other programs may share the file.
        private_roots: see :func:`dynpin.clientstore.enforce`.
        reporter: takes the violation reports, as there.
        context: its roots verify an https report-uri; None for the system's roots.
    """

    def __init__(
        self,
        store: PinStore,
        *,
        private_roots: PrivateRoots = "enforce",
        reporter: Reporter | ReportMode | None = "all",
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.store = store
        if isinstance(reporter, str):
            trusting = ssl.create_default_context() if context is None else context
            reporter = ReportQueue(store, mode=reporter, context=trusting)
        self._enforcement = Enforcement(store, private_roots=private_roots, reporter=reporter)
        # The proof of each upstream connection. For each client: the number of requests that are not answered yet, and
        # the refusals.
        self._peers: MutableMapping[connection.Server, Peer] = WeakKeyDictionary()
        self._busy: Counter[connection.Client] = Counter()
        self._refusals: MutableMapping[connection.Client, dict[Address, _Refused]] = WeakKeyDictionary()

    def running(self) -> None:
        """Send the reports that an earlier process left."""
        if isinstance(self._enforcement.reporter, ReportQueue):
            self._enforcement.reporter.resume()

    # -- upstream connections -----------------------------------------------------------------------------------

    def server_connect(self, data: server_hooks.ServerConnectionHookData) -> None:
        """Refuse HTTP/3, and all TLS over UDP."""
        if data.server.transport_protocol == "udp" and data.server.tls:
            data.server.error = "TLS over UDP (HTTP/3) cannot be checked against the pins, so dynpin refuses it"

    def tls_start_server(self, data: tls.TlsData) -> None:
        """Guard the connection that mitmproxy has made."""
        made = data.ssl_conn
        # mitmproxy logs an exception of an add-on and continues. It must then continue with a closed connection.
        data.ssl_conn = cast("SSL.Connection", ShutConnection())
        if made is None:
            # In a script this hook runs before that of mitmproxy's own TlsConfig.
            asked = tls.TlsData(data.conn, data.context, is_dtls=data.is_dtls)
            ctx.master.addons.get("tlsconfig").tls_start_server(asked)
            made = asked.ssl_conn
        server, client = cast("connection.Server", data.conn), data.context.client
        if made is None or server.address is None:
            return
        guarded = GuardedConnection(
            made,
            self._enforcement,
            name=server.sni,
            port=server.address[1],
            on_passed=partial(self._peers.__setitem__, server),
            on_refused=partial(self._refuse, client, server.address, server.sni),
        )
        data.ssl_conn = cast("SSL.Connection", guarded)

    def server_disconnected(self, data: server_hooks.ServerConnectionHookData) -> None:
        """End a client's tunnel together with its connection to the site, as without this proxy.

        The next request then gets a new tunnel, with a handshake before the request. So a refusal can be answered with
        the explanation. If a request waited for the handshake, mitmproxy itself would answer.
        """
        if data.server not in self._peers or self._busy[data.client]:
            return
        if data.client.state is connection.ConnectionState.CLOSED:
            # It is being closed, as at the end of a WebSocket. If it is closed twice, mitmproxy leaves its socket open.
            return
        handler = ctx.master.addons.get("proxyserver").connections.get(data.client.id)
        if handler is not None and data.client in handler.transports:
            handler.close_connection(data.client)

    def tls_failed_server(self, data: tls.TlsData) -> None:
        """Give the next request a new handshake: the site may show the right key by then."""
        if isinstance(data.ssl_conn, GuardedConnection) and data.ssl_conn.refused:
            data.conn.error = None

    def _refuse(
        self,
        client: connection.Client,
        address: Address,
        name: str | None,
        violation: PinValidationError,
        validated: tuple[bytes, ...],
    ) -> None:
        validation = violation.validation
        explanation = None
        # Without a report it was not a mismatch of a verified chain: the message says what it was.
        if validation is not None and validation.known_host is not None and violation.report is not None:
            now = self.store.clock()
            explanation = explain_violation(validation, validation.known_host, validated, now, self.store)
        refusal = Refusal(name or address[0], str(violation), explanation)
        self._refusals.setdefault(client, {})[address] = refusal, validation
        if client.alpn is None:
            # Only an HTTP/1.1 connection can be closed after the explanation, so that a reload asks the site again.
            client.alpn = b"http/1.1"

    # -- requests and responses ---------------------------------------------------------------------------------

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Answer requests that must not be forwarded."""
        self._busy[flow.client_conn] += 1
        if flow.request.scheme != "https":
            return
        refusal = self._refused(flow) or self._misdirected(flow)
        if refusal is not None:
            flow.response = http.Response.make(*refusal.response(flow.request.headers.get("accept", "")))
            flow.request.stream = False

    async def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Note the pins of the response, and remove the fields from it.

        They are about the keys of the connection that ends here. A program behind the proxy would compare them with the
        proxy's key, and report a violation of every report-only policy.
        """
        headers = cast("http.Response", flow.response).headers
        if flow.request.scheme == "https":
            noting = await note_response_async(
                self.store,
                flow.request.pretty_host,
                self._peers.get(flow.server_conn),
                headers.get_all(ENFORCE_NAME),
                headers.get_all(REPORT_ONLY_NAME),
                port=flow.request.port,
            )
            if noting.outcome in ("noted", "removed"):
                logger.info("%s: %s", noting.outcome, noting.reason)
            elif noting.outcome == "ignored" and ENFORCE_NAME in headers:
                logger.info("the pins of %s were ignored: %s", flow.request.pretty_host, noting.reason)
        for name in (ENFORCE_NAME, REPORT_ONLY_NAME):
            headers.pop(name, None)

    def response(self, flow: http.HTTPFlow) -> None:
        """Count the request as answered, when the last part of the answer is being sent."""
        asyncio.get_running_loop().call_soon(self._answered, flow.client_conn)

    def error(self, flow: http.HTTPFlow) -> None:
        """Count a failed request as answered."""
        self.response(flow)

    def client_disconnected(self, client: connection.Client) -> None:
        """Forget the client."""
        self._busy.pop(client, None)

    def _answered(self, client: connection.Client) -> None:
        if client in self._busy:
            self._busy[client] -= 1

    def _refused(self, flow: http.HTTPFlow) -> Refusal | None:
        """The refusal of the handshake for this request, returned once, or None."""
        refusal, validation = self._refusals.get(flow.client_conn, {}).pop(_destination(flow), (None, None))
        if validation is None:
            return refusal
        try:
            # Browsers keep spare tunnels: by now the host may have other pins or none.
            return refusal if self.store.known_host(validation.host) == validation.known_host else None
        except StoreError:
            return refusal

    def _misdirected(self, flow: http.HTTPFlow) -> Refusal | None:
        """The refusal of a request for a pinned host on another host's connection, or None.

        Browsers send requests for several hosts on one HTTP/2 connection if its certificate has all their names.
        """
        host, tls_name = flow.request.pretty_host, _tls_name(flow)
        server = flow.server_conn
        if server.tls_established and server.address == _destination(flow) and server not in self._peers:
            return Refusal(
                tls_name, f"The connection to {tls_name} was not checked against the pins.\nNo request was sent."
            )
        try:
            if canonical_host(host) == canonical_host(tls_name):
                return None
            known = self.store.known_host(host)
        except (InvalidHost, StoreError) as error:
            return Refusal(host, f"No pins can be looked up for {host}.\n{error}\nNo request was sent.")
        if known is None:
            return None
        message = (
            f"{host} is pinned, but this request for it came on a connection to {tls_name}.\n"
            f"The certificate was verified for {tls_name} and proves nothing about {host}, so no request was sent.\n"
            f"Ask for {host} on a connection of its own."
        )
        logger.warning("refused: %s", message.splitlines()[0])
        return Refusal(host, message, status=MISDIRECTED)


def _destination(flow: http.HTTPFlow) -> Address:
    return flow.request.host, flow.request.port


def _tls_name(flow: http.HTTPFlow) -> str:
    """The name that TLS uses, or will use, on the connection of a request: mitmproxy decides it."""
    server = flow.server_conn
    name: Any = None
    if server.address == _destination(flow):
        name = server.sni or flow.client_conn.sni
    return str(name or flow.request.host)
