"""dynpin: HTTP Public Key Pinning (RFC 7469) for closed environments.

This package has the protocol, without sockets, files or a clock. :mod:`dynpin.middleware` sends the header, and
:mod:`dynpin.clientstore` stores and enforces it.
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

# The module of each public name except errors. It is imported at the first use of the name (PEP 562): every import of
# `dynpin.x` runs this file first, and `dynpin --version` must not wait for ssl.
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
