"""The version of a schema, and the migrations to this program's schema (Alembic)."""

from __future__ import annotations

import re
import secrets
from pathlib import Path

from sqlalchemy import Column, Connection, MetaData, PrimaryKeyConstraint, String, Table, inspect, select

from dynpin.errors import StoreError

from ...formatting import one_line
from .schema import REVISION, metadata, settings

__all__ = ["check_revision", "create", "revision", "upgrade"]

_FOLDER = Path(__file__).parent / "migrations"
# The same table that Alembic makes.
_VERSION = Table(
    "alembic_version",
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)


def revision(db: Connection) -> str | None:
    """The version of the database's schema; None if it has none."""
    return db.scalar(select(_VERSION.c.version_num)) if inspect(db).has_table("alembic_version") else None


def check_revision(found: str, name: str) -> None:
    """Raise if the schema is not of this program's version.

    Raises:
        StoreError: if it is older or newer, or of another program; the message says what to do.
    """
    if not re.fullmatch("[0-9]{4}", found):
        raise StoreError(
            f"the report storage {name} has the tables of another program (alembic_version {one_line(found, 40)}); "
            "name another database"
        )
    if found > REVISION:
        raise StoreError(
            f"the report storage {name} was written by a newer dynpin (schema {found}, this one knows {REVISION}); "
            "upgrade dynpin and start it again, or name another storage"
        )
    if found < REVISION:
        raise StoreError(
            f"the report storage {name} was written by an older dynpin (schema {found}, this one needs {REVISION}); "
            "make a backup, then run  dynpin collect migrate  once, with the same --storage"
        )


def create(db: Connection) -> None:
    """Make all tables in an empty database, in the connection's transaction, with the result of the migrations."""
    metadata.create_all(db, checkfirst=False)
    _VERSION.create(db, checkfirst=False)
    db.execute(_VERSION.insert().values(version_num=REVISION))
    # Made here and not when it is first needed: then a page needs no write, and is shown on a full disk too.
    db.execute(settings.insert().values(name="secret", value=secrets.token_hex(32)))


def upgrade(db: Connection) -> None:
    """Run the missing migrations, in the connection's transaction."""
    # Imported here, since it is rarely needed and its import takes as long as all the rest.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    # configparser reads a % as the beginning of a variable.
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    config.attributes["connection"] = db
    command.upgrade(config, "head")
