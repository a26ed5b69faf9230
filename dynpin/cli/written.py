"""Write a page or a picture: the place is checked before the work, and the file is saved after the output."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from dynpin.cli.errors import fail, reason_of

__all__ = ["check_new_folder", "check_page", "check_place", "picture_form", "save"]

_Form = TypeVar("_Form", bound=str)


def check_place(file: Path) -> None:
    """End the command if this file cannot be written. This makes no file."""
    if not file.parent.is_dir():
        fail(f"{file.parent}: no such folder; make it first, or name another one")
    if file.is_dir():
        fail(f"{file}: a folder; name a file in it")
    if file.is_symlink() and not file.exists():
        fail(f"{file}: a link that leads to no file; name another one")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        fail(f"{file}: no permission to write it; name a file in a folder of your own")


def check_page(file: Path) -> None:
    """End the command if this is not the name of a page, or it cannot be written."""
    if file.suffix.lower() not in (".html", ".htm"):
        fail(f"{file}: the report is a page: give it a name that ends in .html; a browser prints it as .pdf")
    check_place(file)


def picture_form(file: Path, forms: Sequence[_Form]) -> _Form:
    """The form of a picture, from the end of its name. The command ends if it has another, or cannot be written."""
    found = next((form for form in forms if file.suffix.lower() == f".{form}"), None)
    if found is None:
        fail(f"{file}: pictures are {', '.join(f'.{form}' for form in forms[:-1])} or .{forms[-1]}")
    check_place(file)
    return found


def check_new_folder(folder: Path) -> None:
    """End the command if this folder would be made together with one above it, whose name may be mistyped."""
    if not folder.resolve().parent.is_dir():
        fail(f"{folder.parent}: no such folder; make it first: only the last folder of the path is made")


def save(file: Path, content: str | bytes) -> None:
    """Write the file, text as UTF-8. If this fails, the command ends with a message.

    Arguments of the command line may contain bytes that are not text; each becomes a question mark.
    """
    try:
        file.write_bytes(content.encode(errors="replace") if isinstance(content, str) else content)
    except OSError as error:
        fail(f"{reason_of(error, file)}. The file is incomplete: run the command again, or name another file")
