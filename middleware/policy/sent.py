"""The last header of a server, kept in a file for processes that start later."""

from __future__ import annotations

from pathlib import Path

from dynpin.errors import InvalidHeader, PolicyError
from dynpin.files import read_file
from dynpin.header import ENFORCE_NAME, PublicKeyPins

from .atomic import write_atomically

__all__ = ["recall", "remember"]


def recall(path: Path) -> PublicKeyPins | None:
    """The last header of an earlier process, which clients may have noted; None if there was none.

    Raises:
        PolicyError: if the file cannot be read, or has other content.
    """
    try:
        text = read_file(path).decode("ascii")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _unusable(path, "read", error) from None
    name, _, value = text.partition(":")
    try:
        if name != ENFORCE_NAME:
            raise ValueError(f"it does not begin with {ENFORCE_NAME}:")  # noqa: TRY301 - one message for both
        return PublicKeyPins.parse(value.strip())
    except (InvalidHeader, ValueError) as error:
        raise _unusable(path, "read", error) from None


def remember(path: Path, header: PublicKeyPins) -> None:
    """Store this header. The workers of a server may do so at the same time, since the file is replaced atomically.

    Raises:
        PolicyError: if the file cannot be written.
    """
    text = f"{header.name}: {header}\n"
    try:
        if path.exists() and read_file(path).decode("ascii") == text:
            return
        write_atomically(path, text, 0o644)  # its content is public: the header goes to every visitor
    except (OSError, ValueError) as error:
        raise _unusable(path, "written", error) from None


def _unusable(path: Path, verb: str, error: Exception) -> PolicyError:
    why = (error.strerror if isinstance(error, OSError) else None) or error
    return PolicyError(
        f"{path}, which keeps the last header, cannot be {verb} ({why}). The server must be able to write to it and to "
        "its folder. Without the file it cannot notice at its start that clients do not expect the deployed key"
    )
