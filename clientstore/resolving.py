"""The addresses of a name, waited for with a limit: `getaddrinfo` has none, and a resolver may hang for a minute."""

from __future__ import annotations

import os
import socket
import threading
from typing import Any

__all__ = ["addresses_of"]

# How many names may be asked for at once by one process. Each has a thread, which ends when the resolver does.
_MOST = 16


class _Lookup:
    """One name that the resolver was asked for."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.is_over = threading.Event()
        self.found: list[tuple[Any, ...]] = []
        self.error: OSError | None = None

    def run(self) -> None:
        try:
            self.found = list(socket.getaddrinfo(*self.address, type=socket.SOCK_STREAM))
        except OSError as error:
            self.error = error
        except UnicodeError:  # a label that is empty or too long
            self.error = socket.gaierror(socket.EAI_NONAME, "it is not a host name")
        finally:
            with _lock:
                _lookups.pop(self.address, None)
            self.is_over.set()


_lock = threading.Lock()
_lookups: dict[tuple[str, int], _Lookup] = {}


def addresses_of(host: str, port: int, seconds: float) -> list[tuple[Any, ...]]:
    """What ``socket.getaddrinfo`` finds for TCP.

    Who asks for a name that is asked for already waits for that answer, so that a resolver which hangs holds one thread
    for each name, and :data:`_MOST` in all.

    Raises:
        OSError: if the name has no address.
        TimeoutError: if the resolver takes longer than `seconds`, or hangs for too many names.
    """
    address = (host, port)
    with _lock:
        lookup = _lookups.get(address)
        is_new = lookup is None
        if lookup is None:
            if len(_lookups) >= _MOST:
                raise TimeoutError(f"{host} was not looked up: the resolver has not answered for {_MOST} other names")
            lookup = _lookups[address] = _Lookup(address)
    if is_new:
        try:
            threading.Thread(target=lookup.run, name="dynpin-resolver", daemon=True).start()
        except RuntimeError:
            # The interpreter is going down, from Python 3.12 on without new threads. Who asks now is a daemon thread
            # itself, and a process that ends waits for it two seconds at most.
            lookup.run()
    if not lookup.is_over.wait(max(0.0, seconds)):
        raise TimeoutError(f"the resolver gave no address of {host} in time")
    if lookup.error is not None:
        raise lookup.error
    return lookup.found


def _after_fork_in_child() -> None:
    # The parent's threads are not here, and nobody would end what they began.
    global _lock  # noqa: PLW0603 - the lock may be held by one of them
    _lock = threading.Lock()
    _lookups.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
