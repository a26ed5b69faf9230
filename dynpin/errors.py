"""Every exception of the package.

Each message names the thing, the host, the cause and the next step. Each is the built-in error that it resembles
too, so that code which knows nothing of dynpin treats it as what it is.
"""

from __future__ import annotations

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
]

# X509_V_ERR_APPLICATION_VERIFICATION of OpenSSL: the chain is sound, the application refuses it.
_APPLICATION_VERIFICATION = 50


class DynpinError(Exception):
    """The base of every error that dynpin raises."""


class UnpinnableKey(DynpinError, ValueError):
    """No pin can be formed from this input (RFC 7469 §2.4): the message says why and what to give instead."""


class InvalidHost(DynpinError, ValueError):
    """A host name that cannot be made canonical (RFC 6797 §10)."""


class InvalidHeader(DynpinError, ValueError):
    """A header value that RFC 7469 §2.1, or a limit of dynpin, does not allow.

    Attributes:
        code: a stable name of the fault, such as ``"max-age-missing"``.
        message: the fault in words.
        position: the index into the value where it was found, counted in characters from 0.
    """

    def __init__(self, code: str, message: str, position: int = 0) -> None:
        super().__init__(code, message, position)
        self.code = code
        self.message = message
        self.position = position

    def __str__(self) -> str:
        return f"{self.message} ({self.code}, at character {self.position})"


class InvalidPinFile(DynpinError, ValueError):
    """A file of pins that cannot be read: the message names the line or the entry, and nothing of it was taken."""


class InvalidReport(DynpinError, ValueError):
    """A body that is not a violation report (RFC 7469 §3): ``.code`` is stable, ``.message`` says what is missing."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.message} ({self.code})"


class InvalidStudy(DynpinError, ValueError):
    """A study for the simulator that cannot be read or played; the message names the table, the value and the fix."""


class PolicyError(DynpinError, ValueError):
    """A pinning policy that would harm the site's own users, refused before it is served."""


class RecoveryError(DynpinError, ValueError):
    """A signed list, or what signs it, that cannot be used: the message says what is wrong and what to do."""


class StoreError(DynpinError, OSError):
    """The pin store cannot be opened, read or written; the message tells how to recover. Nothing fails open."""


class UnenforceableContext(DynpinError, TypeError):
    """An object on which pins cannot be enforced: not a client ``ssl.SSLContext``, or one that verifies elsewhere."""


class _Lines(str):
    """Text whose ``repr`` is the text itself, each line on its own, so that it stays legible inside of other errors."""

    __slots__ = ()

    def __repr__(self) -> str:
        # The command at the end is copied by the line: no bracket must follow it.
        return f"{self}\n" if "\n" in self else str(self)


class PinValidationError(DynpinError, ssl.SSLCertVerificationError):
    """The host shows none of its pinned keys, and nothing was sent to it (RFC 7469 §2.6).

    It is an :class:`ssl.SSLCertVerificationError`, so that every HTTP library treats it as the certificate
    failure that it is.

    Attributes:
        validation: the :class:`~dynpin.Validation` that failed: host, chain, the entry that applied and why.
        report: the violation report (RFC 7469 §3), or None if the connection gave no name to report.
    """

    def __init__(self, message: str, *, validation: Validation | None = None, report: Report | None = None) -> None:
        # With one argument str() of an SSLError is a tuple; with two it is the second. urllib3, requests and aiohttp
        # show a person the repr of the error or of its arguments.
        super().__init__(1, _Lines(message))
        self.validation = validation
        self.report = report
        # What libraries read from an SSLCertVerificationError to tell people what went wrong.
        self.library = "SSL"
        self.reason = "CERTIFICATE_VERIFY_FAILED"
        self.verify_code = _APPLICATION_VERIFICATION
        self.verify_message = message

    def __reduce__(self) -> tuple[object, ...]:
        # OSError pickles its args, which are not those of __init__; the error crosses process pools all the same.
        return (_rebuild, (self.args[1], self.validation, self.report))


def _rebuild(message: str, validation: Validation | None, report: Report | None) -> PinValidationError:
    return PinValidationError(message, validation=validation, report=report)
