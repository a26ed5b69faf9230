"""Look up the addresses of a name with a time limit: `getaddrinfo` has none, and a resolver may hang for a minute."""

from __future__ import annotations

import os
import socket
import threading
from typing import Any

__all__ = ["addresses_of"]

# How many names one process may look up at once. Each has a thread, which ends when the resolver answers.
_MOST = 16


class _Lookup:
    """The look-up of one name."""

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
    """The result of ``socket.getaddrinfo`` for TCP.

    If the name is being looked up already, this waits for that answer. So a resolver that hangs holds one thread for
    each name, and at most :data:`_MOST` threads.

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
            # The interpreter is shutting down; since Python 3.12 it starts no new threads. This code then runs in a
            # daemon thread, and a process waits for that at most two seconds at its end.
            lookup.run()
    if not lookup.is_over.wait(max(0.0, seconds)):
        raise TimeoutError(f"the resolver gave no address of {host} in time")
    if lookup.error is not None:
        raise lookup.error
    return lookup.found


def _after_fork_in_child() -> None:
    # The child of a fork has none of the parent's threads, so nothing would finish their look-ups.
    global _lock  # noqa: PLW0603 - the lock may be held by one of them
    _lock = threading.Lock()
    _lookups.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
