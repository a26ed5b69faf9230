"""The file of a history: changed under a lock, replaced in one step, and on the disk before a command reports it."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from dynpin.middleware.policy import read_file, write_atomically

from ..locks import Busy, locked
from .history import History, HistoryError
from .repair import Saved, salvage

__all__ = ["HistoryFile"]


class HistoryFile:
    """A file that stores a history.

    Args:
        path: its path; a symbolic link is followed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def exists(self) -> bool:
        """Whether there is a file."""
        return self.path.exists()

    def read(self) -> History:
        """The history.

        Raises:
            FileNotFoundError: if there is no file.
            HistoryError: if it is damaged; the message says what to do.
            OSError: if it cannot be read.
        """
        try:
            return History.from_json(read_file(self.path))
        except HistoryError as error:
            raise HistoryError(
                f"{self.path}: {error}. `dynpin rotate repair --history {self.path}` saves every event that can be "
                "read, keeps this file beside the new one and says what is missing"
            ) from None

    def change(self, edit: Callable[[History | None], History]) -> History:
        """Read the history, edit it and write it, while no other command can.

        Args:
            edit: takes the history, or None if there is no file, and returns the new one.

        Raises:
            HistoryError: as :meth:`read` does; if another command holds the lock; or from `edit`.
            OSError: if the file cannot be read or written; it is unchanged.
        """
        with self._locked():
            try:
                before = self.read()
            except FileNotFoundError:
                before = None
            after = edit(before)
            if after != before:
                self._write(after)
            return after

    def repair(self, edit: Callable[[Saved], History]) -> tuple[History, Path | None]:
        """Write a history from what can still be read, and keep the damaged file beside it.

        Args:
            edit: takes what can be read, and returns the new history.

        Returns:
            The history, and the new path of the damaged file; None if there was no file, or if the new one is equal.

        Raises:
            HistoryError: if another command holds the lock, or from `edit`.
            OSError: if a file cannot be read or written; the damaged one is where it was.
        """
        with self._locked():
            try:
                damaged = b"" if self.path.is_fifo() else read_file(self.path)
            except FileNotFoundError:
                damaged = None
            after = edit(salvage(damaged or b""))
            if damaged == _text(after).encode():
                return after, None
            aside = None if damaged is None else self._aside(damaged)
            self._write(after)
            return after, aside

    def _aside(self, damaged: bytes) -> Path:
        """Copy the damaged file to a name that is free."""
        number = 1
        while True:
            path = self.path.with_name(f"{self.path.name}.damaged{f'-{number}' if number > 1 else ''}")
            try:
                with path.open("xb") as file:
                    file.write(damaged)
                    file.flush()
                    os.fsync(file.fileno())
            except FileExistsError:
                number += 1
                continue
            return path

    def _write(self, history: History) -> None:
        # Resolve a symbolic link. Otherwise the link would be replaced, and its target would not change.
        write_atomically(self._target(), _text(history))

    def _target(self) -> Path:
        # Not Path.resolve: before Python 3.13 it raises RuntimeError for a link to itself. Reading reports the fault.
        return Path(os.path.realpath(self.path))

    @contextmanager
    def _locked(self) -> Generator[None]:
        path = self._target()
        try:
            with locked(path.parent, path.with_name(f"{path.name}.lock"), "a history"):
                yield
        except Busy as error:
            raise HistoryError(str(error)) from None


def _text(history: History) -> str:
    return history.to_json() + "\n"
