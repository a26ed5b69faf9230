"""What an error tells a person to do: commands to type, and how to replace a store file that cannot be used."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import sqlite3
from pathlib import Path

from dynpin.errors import StoreError

__all__ = [
    "DamagedRow",
    "carry_over",
    "check_command",
    "forget_command",
    "nothing_to_save",
    "put_back",
    "store_error",
]

_TOO_MANY_FILES = (errno.EMFILE, errno.ENFILE)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_FILE = (errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)
# One store needs the file, its -wal, its -shm and, while it is created, the folder.
_DESCRIPTORS = 4


def forget_command(host: str, store: Path | str | None) -> str:
    """The shell command that forgets the pins of a host; None is the default store."""
    return _command("forget", host, store=store)


def check_command(store: Path | str | None, *options: str) -> str:
    """The command that checks the file of a store, with options such as ``"--repair"``."""
    return _command("check", *options, store=store)


def _command(*words: str, store: Path | str | None) -> str:
    # A host may be named `a;reboot.example.com`, and a folder may contain a space. The path is absolute, since a
    # program is often started in another folder.
    where = () if store is None else ("--store", str(Path(store).absolute()))
    return shlex.join(["dynpin", "hosts", *words, *where])


def put_back(path: Path) -> str:
    """How to put a copy of the store in its place, in words.

    If a ``-wal`` is beside the file, SQLite reads its pages instead of the file's, even if they belong to another file.
    """
    return f"stop the programs that use it, remove {path.name}-wal and {path.name}-shm, then copy a backup to {path}"


def nothing_to_save(path: Path) -> str:
    """What to do about a file that is not a store, or a store with nothing left in it."""
    return (
        f"There is nothing in it to save. Name another file; or, to put a backup in its place, {put_back(path)}; or "
        "move it away to start with no pins: each host is then trusted on first use again"
    )


def carry_over() -> str:
    """How the hosts of a store that another version of dynpin wrote get into a new one, in words."""
    return (
        "Nothing is wrong with the file. With that dynpin, write its hosts to a file by  dynpin hosts export  and "
        "with this one, read them into another store by  dynpin hosts import"
    )


def _has_log(path: Path) -> bool:
    """Whether there is a ``-wal``: it may have the pages that the file has lost."""
    try:
        return path.with_name(f"{path.name}-wal").stat().st_size > 0
    except OSError:
        return False


class DamagedRow(sqlite3.DatabaseError):
    """The row of a host is not the row that was written."""

    def __init__(self, host: object) -> None:
        super().__init__(f"the entry of {str(host)[:300]!r} is damaged")
        self.host = str(host)


def store_error(path: Path | None, error: Exception) -> StoreError:
    """The StoreError that says what happened to the file and what to do; a StoreError stays as it is."""
    if isinstance(error, StoreError):
        return error
    what = "the pin store in memory" if path is None else f"the pin store {path}"
    if isinstance(error, OSError):
        return StoreError(f"{what} cannot be used: {error.strerror or error}. {_of_the_system(error)}")
    return StoreError(f"{what} cannot be used: {error}. {_of_sqlite(path, error)}")


def _of_the_system(error: OSError) -> str:
    if error.errno in _TOO_MANY_FILES:
        return "Nothing is wrong with the file: this process, or the system, has too many open files (ulimit -n)."
    if error.errno in _NO_ROOM:
        return "The disk is full. Nothing was lost: free some space and try again."
    if error.errno in _NO_FILE:
        return "Name a file in a folder."
    return "Check the permissions of the file and of its folder."


def _of_sqlite(path: Path | None, error: Exception) -> str:
    if isinstance(error, DamagedRow):
        return (
            f"Connections to it are refused. To give up this one entry:  {forget_command(error.host, path)}  or, to "
            f"save all others:  {check_command(path, '--repair')}"
        )
    if isinstance(error, sqlite3.ProgrammingError | sqlite3.InterfaceError):
        return "Nothing is wrong with the file: the call was wrong, or came while the store was being closed."
    if getattr(error, "sqlite_errorname", "") == "SQLITE_IOERR_SHMMAP":
        return (
            "Its file system cannot map a file into memory, as some network drives cannot, and SQLite needs that to "
            "share a file (sqlite.org/wal.html). Nothing was lost: put the store on a local disk, by its path or by "
            "DYNPIN_STORE"
        )
    # SQLITE_IOERR_SHMSIZE, for one, is a kind of SQLITE_IOERR; an error of the module's own has no name.
    kind = getattr(error, "sqlite_errorname", "").removeprefix("SQLITE_").partition("_")[0]
    shortage = _why_nothing_opens() if kind == "CANTOPEN" else None
    if shortage is not None:
        return _of_the_system(shortage)
    is_sealed = path is not None and os.access(path, os.R_OK) and not os.access(path.parent, os.W_OK)
    if kind == "READONLY" or (kind == "CANTOPEN" and is_sealed):
        return (
            "The file can be read but not written: check the permissions of the file and of its folder, and whether "
            "the disk is mounted read-only."
        )
    if kind == "CANTOPEN":
        return _of_the_system(OSError(errno.EACCES, ""))
    if kind == "FULL":
        return _of_the_system(OSError(errno.ENOSPC, ""))
    if kind == "IOERR":
        # SQLite's message if there is no space for the files beside the store, or a limit on the file's size.
        return (
            "The disk or a quota is probably full. What was noted is still in the file: free some space, try again. "
            f"If that is not the cause:  {check_command(path)}"
        )
    if kind in ("BUSY", "LOCKED"):
        return "Nothing is wrong with it: another process was writing for longer than a second. Try again."
    if kind == "ERROR":  # "no such column": what is damaged is SQLITE_CORRUPT
        return f"It was written by another dynpin, whose tables are not those of this one. {carry_over()}"
    if kind == "NOTADB" and path is not None and not _has_log(path):
        return nothing_to_save(path)
    return (
        f"Connections are refused until it can be read. To save what can be read:  {check_command(path, '--repair')}"
        "  or move the file away to start with no pins."
    )


def _why_nothing_opens() -> OSError | None:
    """The system's error if SQLite could not open a file because too many are open: SQLite does not tell."""
    opened: list[int] = []
    try:
        # Not the store's own file: closing a descriptor of it would drop all locks that this process has on it.
        for _ in range(_DESCRIPTORS):
            opened.append(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error
    finally:
        for descriptor in opened:
            with contextlib.suppress(OSError):
                os.close(descriptor)
    return None
