"""dynpin: HTTP Public Key Pinning (RFC 7469) for closed environments.

The protocol stands here, without sockets, files or a clock; :mod:`dynpin.middleware` emits the header,
:mod:`dynpin.clientstore` remembers and enforces it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from dynpin._version import __version__

if TYPE_CHECKING:
    from dynpin.errors import (
        DynpinError,
        InvalidHeader,
        InvalidHost,
        InvalidPinFile,
        InvalidReport,
        PinValidationError,
        PolicyError,
        RecoveryError,
        StoreError,
        UnenforceableContext,
        UnpinnableKey,
    )
    from dynpin.header import PublicKeyPins
    from dynpin.hosts import KnownPinnedHost
    from dynpin.noting import Noting
    from dynpin.pins import Pin
    from dynpin.report import Report
    from dynpin.validation import Validation

__all__ = [
    "DynpinError",
    "InvalidHeader",
    "InvalidHost",
    "InvalidPinFile",
    "InvalidReport",
    "KnownPinnedHost",
    "Noting",
    "Pin",
    "PinValidationError",
    "PolicyError",
    "PublicKeyPins",
    "RecoveryError",
    "Report",
    "StoreError",
    "UnenforceableContext",
    "UnpinnableKey",
    "Validation",
    "__version__",
]

# The module of each public name that is no error. It is imported when the name is first asked for (PEP 562): whatever
# imports `dynpin.x` runs this file first, and `dynpin --version` would wait for ssl.
_MODULES = {
    "KnownPinnedHost": "hosts",
    "Noting": "noting",
    "Pin": "pins",
    "PublicKeyPins": "header",
    "Report": "report",
    "Validation": "validation",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"dynpin.{_MODULES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
