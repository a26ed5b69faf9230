"""The engine for SQLite: one file, embedded, nothing to set up."""

from .engine import SQLiteEngine
from .file import connect, migrate

__all__ = ["SQLiteEngine", "connect", "migrate"]
