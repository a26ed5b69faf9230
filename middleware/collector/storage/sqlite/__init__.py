"""The storage on SQLite: one file, embedded, nothing to set up."""

from .schema import connect
from .storage import SQLiteStorage

__all__ = ["SQLiteStorage", "connect"]
