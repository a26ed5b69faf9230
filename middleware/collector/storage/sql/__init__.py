"""Schema, queries, changes and migrations in SQLAlchemy Core, for both engines."""

from . import schema
from .engine import PATIENCE_S, Engine, Unit
from .migrating import check_revision, create, revision, upgrade
from .move import move
from .sampling import MAX_AGENTS, OTHER_AGENTS, is_sampled, report_rows
from .schema import REVISION
from .storage import SQLStorage
from .totals import by_step
from .work import write_proof

__all__ = [
    "MAX_AGENTS",
    "OTHER_AGENTS",
    "PATIENCE_S",
    "REVISION",
    "Engine",
    "SQLStorage",
    "Unit",
    "by_step",
    "check_revision",
    "create",
    "is_sampled",
    "move",
    "report_rows",
    "revision",
    "schema",
    "upgrade",
    "write_proof",
]
