"""The engine for SQLite: one file, embedded, nothing to set up."""

from .engine import SQLiteEngine
from .file import migrate, raw

__all__ = ["SQLiteEngine", "migrate", "raw"]
