"""All exceptions of the package, and the text of others.

Each message names the thing, the host, the cause and the next step. Each exception is also a subclass of a similar
built-in error, so that code without knowledge of dynpin handles it correctly.
"""

from __future__ import annotations

import re
import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dynpin.report import Report
    from dynpin.validation import Validation

__all__ = [
    "DynpinError",
    "InvalidHeader",
    "InvalidHost",
    "InvalidPinFile",
    "InvalidReport",
    "InvalidStudy",
    "PinValidationError",
    "PolicyError",
    "RecoveryError",
    "StoreError",
    "UnenforceableContext",
    "UnpinnableKey",
    "without_codes",
]

# X509_V_ERR_APPLICATION_VERIFICATION of OpenSSL: the chain is valid, but the application refuses it.
_APPLICATION_VERIFICATION = 50
# What CPython adds to the text of an error: the system's or OpenSSL's code before it, and its own source line after it.
_CODES = re.compile(r"^\[(?:Errno -?[0-9]+|[A-Z][A-Z0-9_: ]*)\] | \(_ssl\.c:[0-9]+\)$")


class DynpinError(Exception):
    """The base class of all errors of dynpin."""


class UnpinnableKey(DynpinError, ValueError):
    """No pin can be made from this input (RFC 7469 §2.4); the message says why, and what to give instead."""


class InvalidHost(DynpinError, ValueError):
    """A host name has no canonical form (RFC 6797 §10)."""


class InvalidHeader(DynpinError, ValueError):
    """A header value that RFC 7469 §2.1, or a limit of dynpin, does not allow.

    Attributes:
        code: a stable name of the fault, such as ``"max-age-missing"``.
        message: the fault, as text.
        position: the index of the fault in the value, in characters from 0.
    """

    def __init__(self, code: str, message: str, position: int = 0) -> None:
        super().__init__(code, message, position)
        self.code = code
        self.message = message
        self.position = position

    def __str__(self) -> str:
        return f"{self.message} ({self.code}, at character {self.position})"


class InvalidPinFile(DynpinError, ValueError):
    """A file of pins cannot be read; the message names the line or the entry. Nothing of the file was used."""


class InvalidReport(DynpinError, ValueError):
    """A body is not a violation report (RFC 7469 §3); ``.code`` is stable, and ``.message`` says what is missing."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.message} ({self.code})"


class InvalidStudy(DynpinError, ValueError):
    """A study for the simulator cannot be read or run; the message names the table, the value and the fix."""


class PolicyError(DynpinError, ValueError):
    """A pinning policy would harm the site's own users; it is refused before it is sent."""


class RecoveryError(DynpinError, ValueError):
    """A signed list or its keys cannot be used; the message says why, and what to do."""


class StoreError(DynpinError, OSError):
    """The pin store or the report storage cannot be used; the message says why, and what to do. Nothing fails open."""


class UnenforceableContext(DynpinError, TypeError):
    """Pins cannot be enforced on this object: no client ``ssl.SSLContext``, or another library verifies for it."""


class _Lines(str):
    """A text whose ``repr`` is the text itself, so that its lines stay readable inside other errors."""

    __slots__ = ()

    def __repr__(self) -> str:
        # People copy the command in the last line, so no bracket must follow it.
        return f"{self}\n" if "\n" in self else str(self)


class PinValidationError(DynpinError, ssl.SSLCertVerificationError):
    """The host shows none of its pinned keys, and nothing was sent to it (RFC 7469 §2.6).

    It is an :class:`ssl.SSLCertVerificationError`, so that every HTTP library handles it as a certificate error.

    Attributes:
        validation: the :class:`~dynpin.Validation` that failed: host, chain, the entry that applied and why.
        report: the violation report (RFC 7469 §3), or None if the connection gave no name to report.
    """

    def __init__(self, message: str, *, validation: Validation | None = None, report: Report | None = None) -> None:
        # With one argument, str() of an SSLError is a tuple; with two it is the second one. urllib3, requests and
        # aiohttp show the repr of the error or of its arguments.
        super().__init__(1, _Lines(message))
        self.validation = validation
        self.report = report
        # Libraries show these attributes of an SSLCertVerificationError to people.
        self.library = "SSL"
        self.reason = "CERTIFICATE_VERIFY_FAILED"
        self.verify_code = _APPLICATION_VERIFICATION
        self.verify_message = message

    def __reduce__(self) -> tuple[object, ...]:
        # OSError pickles its args, which are not those of __init__. This keeps the error usable in process pools.
        return (_rebuild, (self.args[1], self.validation, self.report))


def without_codes(text: str) -> str:
    """The text of an OSError without its codes, which differ between versions and say nothing to people."""
    return _CODES.sub("", text)


def _rebuild(message: str, validation: Validation | None, report: Report | None) -> PinValidationError:
    return PinValidationError(message, validation=validation, report=report)
