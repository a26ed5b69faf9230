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
    """Resumes, for each name, the session of the connection before: what mitmproxy itself does not do."""

    def __init__(self) -> None:
        self.connections: dict[str, Any] = {}
        # None is freed: OpenSSL resumes no session of which a connection was freed before it was shut down.
        self.kept: list[Any] = []

    def tls_start_server(self, data: Any) -> None:
        # TLS 1.3 gives its tickets after the handshake.
        if data.conn.sni in self.connections:
            data.ssl_conn.set_session(self.connections[data.conn.sni].get_session())

    def tls_established_server(self, data: Any) -> None:
        self.connections[data.conn.sni] = data.ssl_conn
        self.kept.append(data.ssl_conn)


_pinning = PinningAddon(PinStore(os.environ["PROXY_STORE"]))
if "PROXY_FAILS" in os.environ:
    # The hook raises then. mitmproxy logs what an add-on raises, and goes on.
    _pinning._peers = None  # type: ignore[assignment]
addons: list[Any] = [_pinning]
if "PROXY_RESUMES" in os.environ:
    addons.append(Resuming())
