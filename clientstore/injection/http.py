"""The hooks on :mod:`http.client`. With them every library on top of it notes pins: urllib, urllib3, requests, pip."""

from __future__ import annotations

import sys
from functools import wraps
from typing import TYPE_CHECKING, Any

from .rules import rules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from http.client import HTTPConnection
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    from dynpin.noting import Noting

__all__ = ["hook_http_client"]

_MODULE = "http.client"
_hooked: list[type] = []
# For each class of connections, its subclass that also notes pins.
_noted: dict[type, type] = {}


def hook_http_client() -> None:
    """Set the hooks once in a process: now, or when the program imports the module."""
    module = sys.modules.get(_MODULE)
    if module is not None:
        _hook(module)
    elif not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        # dynpin does not import it: that takes half as long as the start of Python itself.
        sys.meta_path.insert(0, _AfterImport())


class _AfterImport:
    """Finds http.client with the other finders, and sets the hooks after it was executed."""

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
    made = connection_class.__init__
    if connection_class in _hooked:
        return
    _hooked.append(connection_class)

    @wraps(made)
    def init(self: HTTPConnection, *args: Any, **options: Any) -> None:  # noqa: ANN401 - http.client's own
        made(self, *args, **options)
        # True for http.client's and urllib3's own class for https, which have no other common base.
        if self.default_port == module.HTTPS_PORT and not getattr(self, "dynpin_exempt", False):
            _make_it_note(self)

    setattr(connection_class, "__init__", init)  # noqa: B010 - a method is put in place of another


def _make_it_note(connection: HTTPConnection) -> None:
    """Make a connection note pins, with the code of dynpin's own adapters."""
    # Imported here: it takes longer than the start of Python itself, and a TLS connection is about to be made.
    from ..http_client import NotedConnection  # noqa: PLC0415

    if isinstance(connection, NotedConnection):
        return  # the program's own pinned connection
    made = type(connection)
    noted = _noted.get(made)
    if noted is None:
        noted = _noted.setdefault(made, type(made.__name__, (NotedConnection, made), {"__module__": made.__module__}))
    connection.__class__ = noted
    setattr(connection, "pin_store", _Stores())  # noqa: B010 - of the class that it has now
    setattr(connection, "pin_names", _Names())  # noqa: B010


class _Stores:
    """All stores together; a response is noted in each."""

    @property
    def clock(self) -> Callable[[], float]:
        return rules()[0].store.clock

    def note(self, *args: Any) -> Noting:  # noqa: ANN401 - those of PinStore
        first, *_ = [rule.store.note(*args) for rule in rules()]
        return first


class _Names:
    """All rules together; the names of a request are checked by each."""

    def hold(self, asked: Iterable[str], verified: str | None) -> None:
        for rule in rules():
            rule.names.hold(asked, verified)
