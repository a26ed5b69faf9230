"""Detect test doubles that replace a library's sockets or adapters: mocket, httpretty, requests-mock."""

from __future__ import annotations

import socket
from typing import NoReturn

from dynpin.errors import UnenforceableContext

__all__ = ["is_adapter", "is_socket", "sockets_are_doubles"]

# For each package: the method by which its sockets send a request for real if no answer was registered. mocket would
# use a context that it may have replaced, httpretty one of its own.
_SENDS_FOR_REAL = {"mocket": "true_sendall", "httpretty": "real_sendall"}


def is_adapter(adapter: object) -> bool:
    """Whether an adapter for requests is that of requests-mock, which never connects."""
    return _package(type(adapter)) == "requests_mock"


def is_socket(connected: object) -> bool:
    """Whether a socket is such a double. If it is, it can no longer send for real."""
    way = _SENDS_FOR_REAL.get(_package(type(connected)))
    if way is not None:
        setattr(connected, way, _refuse)
    return way is not None


def sockets_are_doubles() -> bool:
    """Whether new sockets of this process are doubles now. A context that is made meanwhile may be a double too."""
    return _package(socket.socket) in _SENDS_FOR_REAL


def _package(made: type) -> str:
    return made.__module__.partition(".")[0]


def _refuse(*args: object, **options: object) -> NoReturn:
    raise UnenforceableContext(
        "the test double has no answer to this request and would send it without checking the pins; register an "
        "answer, or make the request without the double"
    )
