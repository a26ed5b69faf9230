"""Copy everything from one storage into another, in pieces: from SQLite into PostgreSQL, or back.

During the copy nobody can change the source: its writers wait, and the intake answers 503. Each piece is written
together with a mark of how far the copy has come. A copy that was killed continues from the mark, and copies no row
twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

from sqlalchemy import Connection, Table, delete, func, insert, select, text, tuple_, update
from sqlalchemy.exc import IntegrityError

from dynpin.counts import counted
from dynpin.errors import StoreError

from . import schema
from .engine import Engine, upsert
from .storage import SQLStorage

__all__ = ["Progress", "move"]

Row = Mapping[str, Any]
Progress = Callable[[str, int, int], None]

# These tables are about processes that run now, not about what is stored.
_LEFT_OUT = (schema.leases, schema.batches)
# These tables have rows before the first report.
_OWN = (schema.channels, schema.facts, schema.named_tokens, schema.settings)
# Each table comes after the tables that it refers to.
_COPIED = [table for table in schema.metadata.sorted_tables if table not in (*_LEFT_OUT, *_OWN)]
# If a row of these tables changes, the row of its group changes too, or the number of rows.
_OF_GROUPS = (
    schema.agents, schema.authorities, schema.diagnoses, schema.pins, schema.rates, schema.reports, schema.samples,
    schema.totals,
)  # fmt: skip
# Rows of a piece. A body has up to 256 KiB, and a diagnosis several KiB.
_PIECE = 2_000
_PIECES = {schema.samples: 100, schema.diagnoses: 200}
# How long the source may be locked (seconds); a person watches the progress.
_PATIENCE_S = 86_400.0
# The setting of the target that says how far the copy has come; removed at the end.
_MARK = "move"


def move(
    source: SQLStorage, target: SQLStorage, progress: Progress = lambda table, done, total: None
) -> dict[str, int]:
    """Copy all reports, groups, decisions, tokens and settings. The source is not changed.

    Args:
        source: the storage to copy; nobody else can write to it during the copy.
        target: an empty storage, or one that holds a part of this same copy.
        progress: called with the name of a table, the number of rows copied so far, and the number of all rows.

    Returns:
        How many rows each table has, in both storages.

    Raises:
        StoreError: if the target contains other rows, or one of the two cannot be used.
    """
    secret = source.secret()
    if secret == target.secret():  # by whatever names, such as a link
        raise StoreError(
            f"{target.name} is {source.name} itself, or a finished copy of it; name an empty storage for the copy"
        )
    with source.engine.writing(_PATIENCE_S) as db:
        if db.dialect.name == "postgresql":  # SQLite allows one writer at a time anyway
            names = ", ".join(table.name for table in (*_COPIED, *_OWN))
            db.execute(text(f"LOCK TABLE {names} IN SHARE MODE"))
        counts = {table.name: _count(db, table) for table in _COPIED}
        copy = _Copy(target.engine, source.name, _fingerprint(db, secret, counts))
        total, done = sum(counts.values()), 0
        for table in _COPIED:
            if copy.is_past(table):
                done += counts[table.name]
                continue
            done += copy.count(table)
            progress(table.name, done, total)
            for rows in _pieces(db, table, copy.after(table)):
                copy.add(table, rows)
                done += len(rows)
                progress(table.name, done, total)
        copy.finish(counts, {table: _rows(db, select(table)) for table in _OWN})
    return counts


def _fingerprint(db: Connection, secret: str, counts: Mapping[str, int]) -> str:
    """A text that differs for another source, and for this source after somebody has written to it."""
    # A copy that continued after a change could, for example, hold a token that was revoked since.
    digest = hashlib.sha256(json.dumps([secret, counts]).encode())
    for table in _COPIED:
        if table not in _OF_GROUPS:
            for row in chain.from_iterable(_pieces(db, table, ())):
                digest.update(repr([*row.values()]).encode())
    return digest.hexdigest()


def _count(db: Connection, table: Table) -> int:
    return db.scalar(select(func.count()).select_from(table)) or 0


def _rows(db: Connection, wanted: Any) -> list[Row]:  # noqa: ANN401 - as SQLAlchemy has it
    return [dict(row) for row in db.execute(wanted).mappings()]


def _pieces(db: Connection, table: Table, after: Sequence[Any]) -> Iterator[list[Row]]:
    """The rows after a key, in the order of keys, in pieces."""
    keys = list(table.primary_key)
    while True:
        wanted = select(table).order_by(*keys).limit(_PIECES.get(table, _PIECE))
        rows = _rows(db, wanted.where(tuple_(*keys) > tuple_(*after)) if after else wanted)
        if not rows:
            return
        yield rows
        after = [rows[-1][key.name] for key in keys]


class _Copy:
    """A target, and its mark that says how far the copy has come.

    Each piece compares the mark and sets it. If two processes copy into one target, one of them fails.
    """

    def __init__(self, engine: Engine, source: str, fingerprint: str) -> None:
        self._engine = engine
        self._source = source
        self._fingerprint = fingerprint
        with self._writing() as db:
            found = db.scalar(select(schema.settings.c.value).where(schema.settings.c.name == _MARK))
            if found is None:
                self._refuse_others(db)
                found = self._text("", [])
                db.execute(insert(schema.settings).values(name=_MARK, value=found))
        self._mark = found
        mark = json.loads(found)
        if mark["source"] != fingerprint:
            raise StoreError(
                f"{engine.name} holds a part of another copy, or somebody wrote to {source} since this copy began; "
                "stop every collector, and begin again with an empty storage"
            )
        self._table, self._after = mark["table"], mark["after"]

    def is_past(self, table: Table) -> bool:
        """Whether the whole table has been copied."""
        names = [one.name for one in _COPIED]
        return bool(self._table) and names.index(table.name) < names.index(self._table)

    def after(self, table: Table) -> list[Any]:
        """The key of the last row of this table that was copied; empty if there is none."""
        return self._after if table.name == self._table else []

    def count(self, table: Table) -> int:
        """How many rows of this table the target has."""
        with self._engine.reading() as db:
            return _count(db, table)

    def add(self, table: Table, rows: list[Row]) -> None:
        """Write some rows, and move the mark."""
        after = [rows[-1][key.name] for key in table.primary_key]
        mark = self._text(table.name, after)
        with self._writing() as db:
            self._compare_and_set(db, mark)
            db.execute(insert(table), rows)
        self._mark = mark

    def finish(self, counts: Mapping[str, int], own: Mapping[Table, list[Row]]) -> None:
        """Compare the counts of all tables, copy the storage's own settings, and remove the mark."""
        with self._writing() as db:
            self._compare_and_set(db, self._mark)
            found = {table.name: _count(db, table) for table in _COPIED}
            if found != counts:
                name = next(name for name, number in counts.items() if number != found[name])
                raise StoreError(
                    f"{self._engine.name} has {counted(found[name], 'row')} in its table {name} and {self._source} has "
                    f"{counts[name]}: somebody else wrote to the target; begin again with an empty storage"
                )
            for table, rows in own.items():
                copied = [row for row in rows if row.get("name") != _MARK]
                keys = {key.name for key in table.primary_key}
                upsert(db, table, copied, replace=[column.name for column in table.c if column.name not in keys])
            if db.dialect.name == "postgresql":
                _number_on(db)
            db.execute(delete(schema.settings).where(schema.settings.c.name == _MARK))

    def _text(self, table: str, after: Sequence[Any]) -> str:
        return json.dumps({"source": self._fingerprint, "table": table, "after": after})

    def _compare_and_set(self, db: Connection, mark: str) -> None:
        column = schema.settings.c
        set_ = update(schema.settings).where(column.name == _MARK, column.value == self._mark).values(value=mark)
        if db.execute(set_).rowcount != 1:
            raise StoreError(f"another  dynpin collect move  copies into {self._engine.name}; wait until it has ended")

    def _refuse_others(self, db: Connection) -> None:
        for table in _COPIED:
            if db.execute(select(table).limit(1)).first() is not None:
                raise StoreError(f"{self._engine.name} already has {table.name}; name an empty storage for the copy")

    @contextmanager
    def _writing(self) -> Generator[Connection]:
        try:
            with self._engine.writing() as db:
                yield db
        except StoreError as error:
            if not isinstance(error.__cause__, IntegrityError):
                raise
            raise StoreError(
                f"somebody else wrote to {self._engine.name} while {self._source} was copied into it; stop every "
                "collector that uses it, and begin again with an empty storage"
            ) from error


def _number_on(db: Connection) -> None:
    """Set PostgreSQL's sequences behind the ids that were copied. SQLite needs no such step."""
    for table in _COPIED:
        for column in table.c:
            if column.identity is not None:
                sequence = func.pg_get_serial_sequence(table.name, column.name)
                last = select(func.max(column)).scalar_subquery()
                db.execute(select(func.setval(sequence, func.coalesce(last, 1), last.is_not(None))))
