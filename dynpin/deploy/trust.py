"""The TLS context that trusts the roots that a person names."""

from __future__ import annotations

import ssl
from pathlib import Path

from dynpin.errors import DynpinError
from dynpin.files import read_file

__all__ = ["CannotReach", "trusting"]


class CannotReach(DynpinError):
    """A site cannot be looked at; the message says why, and what to do."""


def trusting(ca: Path | None, roots: tuple[Path, ...] = ()) -> ssl.SSLContext:
    """A new context that trusts the roots in a file (PEM), or those of the system; and further roots besides.

    Raises:
        CannotReach: if a file cannot be read; the message names it.
    """
    file = ca
    try:
        # OpenSSL would wait for the writer of a pipe, and read it twice.
        text = read_file(ca).decode("ascii") if ca is not None and ca.is_fifo() else None
        context = ssl.create_default_context(cafile=ca if text is None else None, cadata=text)
        for file in roots:
            context.load_verify_locations(file)
    except (ssl.SSLError, UnicodeDecodeError):
        raise CannotReach(f"{file} holds no roots that can be read: name a file of root certificates in PEM") from None
    except OSError as error:
        raise CannotReach(f"{file}: {error.strerror or error}; name a file of root certificates in PEM") from None
    return context
