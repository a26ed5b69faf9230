"""The hooks on ``ssl.SSLContext``: a context is hardened when it is about to make a client connection.

At that time its classes are known, wherever they were set: on the context, on a subclass, or on the inner context of
truststore's. A class attribute of ``ssl.SSLContext`` would be hidden by all of these, and would change connections that
a server accepts. A hook on the constructor would miss the contexts that exist already.
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
    """Set the hooks once in a process."""
    if _hooked:
        return
    context_class = _context_class()
    _hooked.append(context_class)
    for name, server_side in (("wrap_socket", 1), ("wrap_bio", 2)):
        _before(context_class, name, server_side, _harden)
    # Every connection of OpenSSL is made by these methods in the end. If a library makes its own kind of socket with
    # them, as gevent and eventlet do, it has ignored the classes of the context.
    for name, server_side in (("_wrap_socket", 1), ("_wrap_bio", 2)):
        _before(context_class, name, server_side, _refuse_unguarded)


def _context_class() -> type:
    """CPython's own ``ssl.SSLContext``: truststore, gevent and eventlet replace it by subclasses."""
    of_openssl: type = getattr(_ssl, "_SSLContext")  # noqa: B009 - typeshed does not have it
    line = ssl.SSLContext.__mro__
    return line[line.index(of_openssl) - 1]


def _before(context_class: type, name: str, position: int, act: _Act) -> None:
    """Run `act` before the method makes a client's connection.

    Args:
        context_class: the class with the method.
        name: the name of the method.
        position: the position of `server_side` among its arguments.
        act: called with the context and the arguments.
    """
    method: Callable[..., object] = getattr(context_class, name)

    @wraps(method)
    def hooked(self: ssl.SSLContext, *args: Any, **options: Any) -> object:  # noqa: ANN401 - those of ssl
        server_side = args[position] if len(args) > position else options.get("server_side", False)
        # OpenSSL itself refuses to connect with a server's context.
        if not server_side and self.protocol is not ssl.PROTOCOL_TLS_SERVER:
            act(self, args, options)
        return method(self, *args, **options)

    setattr(context_class, name, hooked)


def _harden(context: ssl.SSLContext, _args: tuple[Any, ...], _options: dict[str, Any]) -> None:
    # Hardening makes connections with the context, which lead here again; the rule already holds for those.
    for rule in rules():
        if not rule.holds(context.sslsocket_class, context.sslobject_class):
            rule.harden(context)


def _refuse_unguarded(context: ssl.SSLContext, args: tuple[Any, ...], options: dict[str, Any]) -> None:
    owner: object = options.get("owner") or args[0]
    made: type = type(owner)
    if not all(rule.holds(made) for rule in rules()):
        raise UnenforceableContext(
            f"{made.__module__}.{made.__name__} ignores the classes of {type(context).__name__}, so pins cannot be "
            "enforced on it. With gevent, import ssl first, and then call monkey.patch_all(ssl=False)"
        )
