"""The engine for PostgreSQL: any number of machines, and a standby that has what was acknowledged."""

from .address import described
from .engine import PostgreSQLEngine, migrate

__all__ = ["PostgreSQLEngine", "described", "migrate"]
