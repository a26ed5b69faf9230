"""The proxy as a process: mitmproxy with the add-on, from start until a signal."""

# mitmproxy is not installed in the environment for type checks.
# pyright: reportMissingImports=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from pathlib import Path
from typing import cast

from mitmproxy import http, options
from mitmproxy.addons import default_addons
from mitmproxy.master import Master

from dynpin.lab.proxy.addon import PinningAddon

__all__ = ["AUTHORITY", "serve"]

# The certificate of the proxy's own authority, in its folder.
AUTHORITY = "mitmproxy-ca-cert.pem"


async def serve(
    addon: PinningAddon,
    *,
    host: str,
    port: int,
    authority_folder: Path,
    upstream_roots: Path | None,
    on_listening: Callable[[str, int], None],
) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        addon: notes and enforces pins.
        host: the address to listen on.
        port: the port; 0 for a free one.
        authority_folder: the folder of the proxy's own authority, which is created if it is missing.
        upstream_roots: the roots (PEM) that verify sites; None for those of certifi.
        on_listening: called with address and port when programs can connect.

    Raises:
        OSError: if the proxy cannot start; the message says why.
    """
    chosen = options.Options(
        listen_host=host,
        listen_port=port,
        confdir=str(authority_folder),
        ssl_verify_upstream_trusted_ca=None if upstream_roots is None else str(upstream_roots),
    )
    master = Master(chosen)
    start = _Start(master, on_listening)
    errors = _FirstErrors()
    logging.getLogger("mitmproxy").addHandler(errors)
    try:
        master.addons.add(*default_addons(), addon, _Streaming(), start)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, master.shutdown)
        await master.run()
    finally:
        logging.getLogger("mitmproxy").removeHandler(errors)
    if not start.listens:
        raise OSError(f"the proxy cannot listen on {host}:{port}: {errors.text() or 'mitmproxy gives no reason'}")


class _Start:
    """Reports that the proxy listens, or ends a proxy that could not start."""

    def __init__(self, master: Master, on_listening: Callable[[str, int], None]) -> None:
        self._master = master
        self._on_listening = on_listening
        self.listens = False

    def running(self) -> None:
        addresses = self._master.addons.get("proxyserver").listen_addrs()
        if not addresses:
            self._master.shutdown()
            return
        self.listens = True
        self._on_listening(*addresses[0][:2])


class _Streaming:
    """Forwards bodies as they arrive: a download need not fit into memory, and an event stream need not end."""

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        if flow.response is None:
            flow.request.stream = True

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        cast("http.Response", flow.response).stream = True


class _FirstErrors(logging.Handler):
    """Keeps mitmproxy's error messages: it continues even if a server cannot be started."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._messages.append(record.getMessage())

    def text(self) -> str:
        return "; ".join(self._messages)
