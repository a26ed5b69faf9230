"""Lines of a ``dynpin.toml``, for a new file or for a message."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from dynpin.middleware.policy import KeySource, path_of

__all__ = ["backups_line", "toml_string"]


def toml_string(value: str) -> str:
    """A TOML string: a JSON string, except that TOML also escapes U+007F."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def backups_line(backups: Iterable[KeySource], folder: Path) -> str:
    """The line with these backup keys, each once. Paths are relative to `folder`, the folder of the inventory."""
    return f"backups = [{', '.join(dict.fromkeys(_source(each, folder) for each in backups))}]"


def _source(source: KeySource, folder: Path) -> str:
    path = path_of(source)
    return f'{{ pin = "{source!s}" }}' if path is None else toml_string(os.path.relpath(path, folder))
