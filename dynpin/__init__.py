"""dynpin: HTTP Public Key Pinning (RFC 7469) for closed environments.

The protocol stands here, without sockets, files or a clock; :mod:`dynpin.middleware` emits the header,
:mod:`dynpin.clientstore` remembers and enforces it.
"""

from dynpin._version import __version__
from dynpin.errors import (
    DynpinError,
    InvalidHeader,
    InvalidHost,
    InvalidPinFile,
    InvalidReport,
    PinValidationError,
    PolicyError,
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
    "Report",
    "StoreError",
    "UnenforceableContext",
    "UnpinnableKey",
    "Validation",
    "__version__",
]
