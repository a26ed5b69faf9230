"""Open the storage at an address: PostgreSQL if it begins with ``postgresql://``, else a file of SQLite."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .sql import Engine, SQLStorage

__all__ = ["address_of", "migrate_storage", "open_storage", "shown"]

_SCHEMES = ("postgresql://", "postgres://")
# An address of a server in another form, or with a typo. As the path of a file, its password would be a file name.
_NO_FILE = re.compile(r"\s*postgres(ql)?\s*:|(.*\s)?(host|hostaddr|port|dbname|user|password|service)\s*=", re.I | re.S)


def address_of(text: str | os.PathLike[str]) -> str | Path:
    """The address of a server, unchanged, or the path of a file.

    Raises:
        ValueError: if it is the address of something else.
    """
    if isinstance(text, str) and text.startswith(_SCHEMES):
        return text
    if isinstance(text, str) and _NO_FILE.match(text):
        raise ValueError("the address of the report storage cannot be read; write postgresql://USER@HOST/DATABASE")
    if isinstance(text, str) and "://" in text:
        scheme = text.partition("://")[0]
        raise ValueError(f"dynpin has no storage for {scheme[:40]}://; name a file, or postgresql://USER@HOST/DATABASE")
    return Path(text)


def shown(text: str | os.PathLike[str]) -> str:
    """The address for people, without the password."""
    address = address_of(text)
    if isinstance(address, Path):
        return str(address)
    from .postgresql import described  # noqa: PLC0415

    return described(address)


def open_storage(text: str | os.PathLike[str], *, clock: Callable[[], float] = time.time) -> SQLStorage:
    """Open a storage.

    Args:
        text: the path of an SQLite file, which is made if there is none; or ``postgresql://USER@HOST/DATABASE``, as
            libpq reads it, also with several hosts (``postgresql://a,b/dynpin``).
        clock: seconds since the epoch, UTC; filters such as ``since=7d`` count from it.

    Raises:
        StoreError: if it cannot be used; the message names it, the cause and what to do.
        ModuleNotFoundError: if an extra is missing; the message names it.
        ValueError: if it is the address of something else.
    """
    address = address_of(text)
    try:
        from .sql import SQLStorage  # noqa: PLC0415 - SQLAlchemy comes with the extra, and takes a while

        return SQLStorage(_engine(address), clock)
    except ModuleNotFoundError as error:
        raise _lacking(error, address) from error


def migrate_storage(text: str | os.PathLike[str]) -> None:
    """Change a storage to this program's schema; everything else that uses it waits.

    Raises:
        StoreError: if that fails, or the storage was written by a newer dynpin.
        ModuleNotFoundError: if an extra is missing; the message names it.
        ValueError: if it is the address of something else.
    """
    address = address_of(text)
    try:
        if isinstance(address, Path):
            from . import sqlite  # noqa: PLC0415

            sqlite.migrate(address)
        else:
            from . import postgresql  # noqa: PLC0415

            postgresql.migrate(address)
    except ModuleNotFoundError as error:
        raise _lacking(error, address) from error


def _engine(address: str | Path) -> Engine:
    if isinstance(address, Path):
        from .sqlite import SQLiteEngine  # noqa: PLC0415

        return SQLiteEngine(address)
    from .postgresql import PostgreSQLEngine  # noqa: PLC0415

    return PostgreSQLEngine(address)


def _lacking(error: ModuleNotFoundError, address: str | Path) -> ModuleNotFoundError:
    extra = "collector" if isinstance(address, Path) else "postgresql"
    where = "the report storage" if isinstance(address, Path) else "a storage on PostgreSQL"
    message = f"{where} needs {error.name}: from your clone, pip install '.[{extra}]'"
    return ModuleNotFoundError(message, name=error.name)
