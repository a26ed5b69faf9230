"""Run by mitmdump: the add-on as a script, whose hooks run before those of mitmproxy's own TlsConfig."""

from __future__ import annotations

import os
from typing import Any

from dynpin.clientstore import PinStore
from dynpin.lab.network import loopback_names
from dynpin.lab.proxy import PinningAddon

_names = loopback_names()
_names.__enter__()


class Resuming:
    """Resumes, for each name, the session of the last connection; mitmproxy itself never does."""

    def __init__(self) -> None:
        self.connections: dict[str, Any] = {}
        # All are kept: OpenSSL does not resume a session whose connection was freed before it was shut down.
        self.kept: list[Any] = []

    def tls_start_server(self, data: Any) -> None:
        # In TLS 1.3 the tickets come after the handshake.
        if data.conn.sni in self.connections:
            data.ssl_conn.set_session(self.connections[data.conn.sni].get_session())

    def tls_established_server(self, data: Any) -> None:
        self.connections[data.conn.sni] = data.ssl_conn
        self.kept.append(data.ssl_conn)


_pinning = PinningAddon(PinStore(os.environ["PROXY_STORE"]))
if "PROXY_FAILS" in os.environ:
    # The hook then raises. mitmproxy logs an add-on's exception, and continues.
    _pinning._peers = None  # type: ignore[assignment]
addons: list[Any] = [_pinning]
if "PROXY_RESUMES" in os.environ:
    addons.append(Resuming())
