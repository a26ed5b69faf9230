"""Test doubles that stand in for a library's sockets or adapters: mocket, httpretty, requests-mock."""

from __future__ import annotations

import socket
from typing import NoReturn

from dynpin.errors import UnenforceableContext

__all__ = ["is_adapter", "is_socket", "sockets_are_doubles"]

# By the package: the method by which its sockets send for real what nobody has told them an answer to. mocket would
# hand it to a context that it may have replaced, httpretty to one of its own.
_SENDS_FOR_REAL = {"mocket": "true_sendall", "httpretty": "real_sendall"}


def is_adapter(adapter: object) -> bool:
    """Whether an adapter for requests is that of requests-mock, which never connects."""
    return _package(type(adapter)) == "requests_mock"


def is_socket(connected: object) -> bool:
    """Whether a socket is such a double; it cannot send for real from here on."""
    way = _SENDS_FOR_REAL.get(_package(type(connected)))
    if way is not None:
        setattr(connected, way, _refuse)
    return way is not None


def sockets_are_doubles() -> bool:
    """Whether every new socket of this process is one for now; a context made meanwhile may be a double too."""
    return _package(socket.socket) in _SENDS_FOR_REAL


def _package(made: type) -> str:
    return made.__module__.partition(".")[0]


def _refuse(*args: object, **options: object) -> NoReturn:
    raise UnenforceableContext(
        "the test double has no answer to this request and would send it past the pins; register one, or make the "
        "request when the double is out of the way"
    )
