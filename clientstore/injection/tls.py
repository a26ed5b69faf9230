"""The hooks on ``ssl.SSLContext``: a context is hardened at the moment at which it makes a client connection.

Then its classes are what they are, wherever they were set: on the context, on a subclass, on the context
inside of truststore's. A class attribute of ``ssl.SSLContext`` would be passed over by all of these, and would change
the connections that a server accepts; a hook on construction would miss the contexts that exist.
"""

from __future__ import annotations

import _ssl
import ssl
from functools import wraps
from typing import TYPE_CHECKING, Any

from dynpin.errors import UnenforceableContext

from .rules import rules

if TYPE_CHECKING:
    from collections.abc import Callable

    _Act = Callable[[ssl.SSLContext, tuple[Any, ...], dict[str, Any]], None]

__all__ = ["hook_ssl"]

_hooked: list[type] = []


def hook_ssl() -> None:
    """Put the hooks in, once a process."""
    if _hooked:
        return
    context_class = _context_class()
    _hooked.append(context_class)
    for name, server_side in (("wrap_socket", 1), ("wrap_bio", 2)):
        _before(context_class, name, server_side, _harden)
    # What every connection of OpenSSL is made by in the end. A library that makes its own kind of socket by it alone,
    # as gevent and eventlet do, has gone past the classes of the context.
    for name, server_side in (("_wrap_socket", 1), ("_wrap_bio", 2)):
        _before(context_class, name, server_side, _refuse_unguarded)


def _context_class() -> type:
    """CPython's own ``ssl.SSLContext``: truststore, gevent and eventlet put subclasses in its place."""
    of_openssl: type = getattr(_ssl, "_SSLContext")  # noqa: B009 - typeshed does not have it
    line = ssl.SSLContext.__mro__
    return line[line.index(of_openssl) - 1]


def _before(context_class: type, name: str, position: int, act: _Act) -> None:
    """Have `act` run before the method of that name makes a client's connection.

    Args:
        context_class: the class of the method.
        name: the method.
        position: where `server_side` stands among its arguments.
        act: given the context and the arguments.
    """
    method: Callable[..., object] = getattr(context_class, name)

    @wraps(method)
    def hooked(self: ssl.SSLContext, *args: Any, **options: Any) -> object:  # noqa: ANN401 - those of ssl
        server_side = args[position] if len(args) > position else options.get("server_side", False)
        # OpenSSL itself refuses to connect by a server's context.
        if not server_side and self.protocol is not ssl.PROTOCOL_TLS_SERVER:
            act(self, args, options)
        return method(self, *args, **options)

    setattr(context_class, name, hooked)


def _harden(context: ssl.SSLContext, _args: tuple[Any, ...], _options: dict[str, Any]) -> None:
    # To harden one is to make connections with it, which come here again, and hold by then.
    for rule in rules():
        if not rule.holds(context.sslsocket_class, context.sslobject_class):
            rule.harden(context)


def _refuse_unguarded(context: ssl.SSLContext, args: tuple[Any, ...], options: dict[str, Any]) -> None:
    owner: object = options.get("owner") or args[0]
    made: type = type(owner)
    if not all(rule.holds(made) for rule in rules()):
        raise UnenforceableContext(
            f"{made.__module__}.{made.__name__} goes past the classes of {type(context).__name__}, so pins cannot be "
            "enforced on it. With gevent import ssl first, and then monkey.patch_all(ssl=False)"
        )
