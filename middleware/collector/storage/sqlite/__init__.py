"""The engine for SQLite: one file, with no server to set up."""

from .engine import SQLiteEngine
from .file import migrate, raw

__all__ = ["SQLiteEngine", "migrate", "raw"]
