"""The version of a schema, and the migrations that lead to this program's (Alembic)."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Column, Connection, MetaData, PrimaryKeyConstraint, String, Table, inspect, select

from dynpin.errors import StoreError

from .schema import REVISION, metadata

__all__ = ["check_revision", "create", "revision", "upgrade"]

_FOLDER = Path(__file__).parent / "migrations"
# As Alembic keeps it.
_VERSION = Table(
    "alembic_version",
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)


def revision(db: Connection) -> str | None:
    """The version of the schema that is there; None where there is none."""
    return db.scalar(select(_VERSION.c.version_num)) if inspect(db).has_table("alembic_version") else None


def check_revision(found: str, name: str) -> None:
    """Raise where the schema is of another version than this program's, and say what to do.

    Raises:
        StoreError: for an older or a newer one.
    """
    if found > REVISION:
        raise StoreError(
            f"the report storage {name} was written by a newer dynpin (schema {found}, this one knows {REVISION}); "
            "upgrade dynpin, or name another storage"
        )
    if found < REVISION:
        raise StoreError(
            f"the report storage {name} is of an older dynpin (schema {found}, this one needs {REVISION}); make a "
            "backup, then run  dynpin collect migrate  once, with the same --storage"
        )


def create(db: Connection) -> None:
    """Make all tables in an empty database, in the transaction that the connection is in, as the migrations would."""
    metadata.create_all(db, checkfirst=False)
    _VERSION.create(db, checkfirst=False)
    db.execute(_VERSION.insert().values(version_num=REVISION))


def upgrade(db: Connection) -> None:
    """Run the migrations that are missing, in the transaction that the connection is in."""
    # It is needed once, and its import takes as long as all the rest.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    # configparser would take a % as the beginning of a name.
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    config.attributes["connection"] = db
    command.upgrade(config, "head")
