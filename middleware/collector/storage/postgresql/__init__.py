"""The engine for PostgreSQL: for several machines, and with a standby that has every acknowledged report."""

from .address import described
from .engine import PostgreSQLEngine, migrate

__all__ = ["PostgreSQLEngine", "described", "migrate"]
