"""A join that SQLite does not reorder."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Table
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.selectable import Join

__all__ = ["first"]


class _InOrder(Join):
    inherit_cache = True


def first(table: Table, then: Table, on: ColumnElement[bool]) -> Join:
    """A join that reads `table` first, and then, for each of its rows, the rows of `then`.

    SQLite has no statistics here, and would sometimes read all rows of the wrong table. PostgreSQL has statistics.
    """
    return _InOrder(table, then, on)


@compiles(_InOrder, "sqlite")
def _cross_join(join: Join, compiler: Any, **options: Any) -> str:  # noqa: ANN401 - as SQLAlchemy has it
    # SQLite: "The CROSS JOIN operator ... prevents the query optimizer from reordering".
    text: str = compiler.visit_join(join, **options)
    return text.replace(" JOIN ", " CROSS JOIN ", 1)
