"""The hooks on :mod:`http.client`, so that whatever stands on it notes: urllib, urllib3, requests, botocore, pip."""

from __future__ import annotations

import sys
from functools import wraps
from typing import TYPE_CHECKING, Any

from .rules import made_rules

if TYPE_CHECKING:
    from collections.abc import Sequence
    from http.client import HTTPConnection, HTTPResponse
    from importlib.machinery import ModuleSpec
    from types import ModuleType

__all__ = ["hook_http_client"]

_MODULE = "http.client"
# What the connection asks for, kept with it until the response comes.
_TARGET = "_dynpin_target"


def hook_http_client() -> None:
    """Put the hooks in, once a process: now, or when the program imports the module."""
    module = sys.modules.get(_MODULE)
    if module is not None:
        _hook(module)
    elif not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        # Not imported for its own sake: it takes half as long as Python itself to start.
        sys.meta_path.insert(0, _AfterImport())


class _AfterImport:
    """Finds http.client where the other finders find it, and puts the hooks in when it has been executed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None, /
    ) -> ModuleSpec | None:
        if fullname != _MODULE:
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        spec = next((spec for finder in others if (spec := finder.find_spec(fullname, path, target))), None)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            _hook(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _hook(module: ModuleType) -> None:
    connection_class: type[HTTPConnection] = module.HTTPConnection
    if hasattr(connection_class, _TARGET):
        return
    setattr(connection_class, _TARGET, None)
    put, get = connection_class.putrequest, connection_class.getresponse

    @wraps(put)
    def putrequest(self: HTTPConnection, method: str, url: str, *args: Any, **options: Any) -> None:  # noqa: ANN401
        setattr(self, _TARGET, url)
        put(self, method, url, *args, **options)

    @wraps(get)
    def getresponse(self: HTTPConnection, *args: Any, **options: Any) -> HTTPResponse:  # noqa: ANN401
        # Before: with `Connection: close` the socket is gone when the response has been read.
        sock = self.sock
        response = get(self, *args, **options)
        _note(self, sock, response)
        return response

    setattr(connection_class, "putrequest", putrequest)  # noqa: B010 - a method is put in the place of another
    setattr(connection_class, "getresponse", getresponse)  # noqa: B010


def _note(connection: HTTPConnection, sock: object, response: HTTPResponse) -> None:
    """Note what a final response pins that came from the origin itself, over a connection of ours."""
    found = made_rules()
    if not found or sock is None or response.status < 200:
        return  # no client connection has been made; or an informational response: 103 is handed out as a response
    # What a proxy is asked for in absolute form comes from elsewhere, also over TLS with the proxy.
    if not str(getattr(connection, _TARGET) or "/").startswith("/"):
        return
    # Here, since they take longer than Python itself to start, and a connection has imported them.
    from dynpin.header import ENFORCE_NAME, REPORT_ONLY_NAME  # noqa: PLC0415

    from ..enforcement import peer_of  # noqa: PLC0415
    from ..responses import note_response  # noqa: PLC0415

    # TLS inside TLS has an object of its own around the one that counts (urllib3).
    peer = peer_of(sock) or peer_of(getattr(sock, "sslobj", None))
    if peer is None:
        return
    tunnel: str | None = getattr(connection, "_tunnel_host", None)
    port: int | None = connection.port if tunnel is None else getattr(connection, "_tunnel_port", None)
    fields = [response.headers.get_all(name, []) for name in (ENFORCE_NAME, REPORT_ONLY_NAME)]
    for rule in found:
        note_response(rule.store, tunnel or connection.host, peer, *fields, port=port)
