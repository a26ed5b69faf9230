"""The migrations lead to the tables that the program has, on each storage."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, text

from dynpin.errors import StoreError
from dynpin.middleware.collector import open_storage
from dynpin.middleware.collector.storage import migrate_storage
from dynpin.middleware.collector.storage.sql import REVISION, create, revision, upgrade
from tests.postgres import Cluster

TABLES = {
    "sqlite": "SELECT type, name, sql FROM sqlite_schema WHERE name != 'alembic_version' ORDER BY name",
    "postgresql": "SELECT table_name, column_name, data_type, is_nullable, column_default, is_identity, collation_name "
    "FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2",
}
MORE = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1"
STORED = (
    "SELECT relname, reloptions, attname, attstorage, attcompression FROM pg_attribute "
    "JOIN pg_class ON pg_class.oid = attrelid WHERE relnamespace = 'public'::regnamespace AND attnum > 0 ORDER BY 1, 3"
)
CONSTRAINTS = (
    "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint "
    "WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2"
)


def what_is_there(db: Connection) -> list[Any]:
    if db.dialect.name == "sqlite":
        words = [
            (kind, name, sorted((sql or "").replace('"', "").split()))
            for kind, name, sql in db.execute(text(TABLES["sqlite"]))
        ]
        return [(kind, name, [word.strip(",()") for word in sql]) for kind, name, sql in words]
    return [tuple(row) for sql in (TABLES["postgresql"], MORE, CONSTRAINTS, STORED) for row in db.execute(text(sql))]


def both_ways(first: str, second: str) -> None:
    """Make one database at once and the other by the migrations: they are the same."""
    found: list[list[Any]] = []
    for address, make in ((first, create), (second, upgrade)):
        engine = create_engine(address)
        with engine.connect() as db:
            make(db)
            db.commit()
            assert revision(db) == REVISION
            found.append(what_is_there(db))
        engine.dispose()
    assert found[0] == found[1]
    assert len(found[0]) > 20


def test_on_sqlite(tmp_path: Path) -> None:
    both_ways(f"sqlite:///{tmp_path}/one", f"sqlite:///{tmp_path}/other")


def test_on_postgresql(cluster: Cluster) -> None:
    with cluster.database() as one, cluster.database() as other:
        both_ways(*(address.replace("postgresql://", "postgresql+psycopg://") for address in (one, other)))


def test_a_file_of_another_version_is_told_and_migrated(tmp_path: Path) -> None:
    file = tmp_path / "r.sqlite"
    open_storage(file).close()
    for found, told in (("9999", "written by a newer dynpin"), ("0000", "dynpin collect migrate")):
        with closing(sqlite3.connect(file)) as db, db:
            db.execute("UPDATE alembic_version SET version_num = ?", (found,))
        with pytest.raises(StoreError, match=told):
            open_storage(file)
    with pytest.raises(StoreError, match="there is no file"):
        migrate_storage(tmp_path / "none")
    with closing(sqlite3.connect(file)) as db, db:
        db.execute("UPDATE alembic_version SET version_num = ?", (REVISION,))
    migrate_storage(file)
    open_storage(file).close()
