"""The header that a server sent last, kept in a file: a process that starts later would not know of it otherwise."""

from __future__ import annotations

from pathlib import Path

from dynpin.errors import InvalidHeader, PolicyError
from dynpin.header import ENFORCE_NAME, PublicKeyPins

from .atomic import write_atomically
from .files import read_file

__all__ = ["recall", "remember"]


def recall(path: Path) -> PublicKeyPins | None:
    """The header that clients may have noted of an earlier process, or None if there was none.

    Raises:
        PolicyError: if the file cannot be read, or holds something else.
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
    """Keep this header. The workers of a server may do so at the same time: the file is whole at every moment.

    Raises:
        PolicyError: if the file cannot be written.
    """
    text = f"{header.name}: {header}\n"
    try:
        if path.exists() and read_file(path).decode("ascii") == text:
            return
        write_atomically(path, text, 0o644)  # it says what every visitor is told
    except (OSError, ValueError) as error:
        raise _unusable(path, "written", error) from None


def _unusable(path: Path, verb: str, error: Exception) -> PolicyError:
    why = (error.strerror if isinstance(error, OSError) else None) or error
    return PolicyError(
        f"{path}, which keeps the header that was sent last, cannot be {verb} ({why}). The server needs to write to it "
        "and to its folder; without the file a key that clients do not expect is not noticed at the start"
    )
