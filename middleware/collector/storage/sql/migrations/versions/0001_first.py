"""The first schema.

Revision ID: 0001
"""

# SQLAlchemy has no type for a column that may be NULL.
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_SETTINGS = sa.table("settings", sa.column("name"), sa.column("value"))
_Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
# Ordered by its bytes, also if the database has another order.
_Text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
# A view with times as text, for Datasette and psql.
_VIEW = """
CREATE VIEW readable_reports AS
    SELECT reports.id, {time}(reports.received_at{epoch}) AS received, {time}(reports.observed_at{epoch}) AS observed,
           groups.host, groups.noted_host, groups.port, groups.mode, groups.verdict, groups.issuer,
           reports.token, reports.source, reports.user_agent, reports.flags, samples.body
    FROM reports JOIN groups ON groups.id = reports.group_id LEFT JOIN samples ON samples.report_id = reports.id
"""
# A server that was built without LZ4 does not compress bodies.
_COMPRESSED_BODIES = """
DO $$BEGIN
    ALTER TABLE samples ALTER body SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN
    ALTER TABLE samples ALTER body SET STORAGE EXTERNAL;
END$$
"""


def upgrade() -> None:
    """Make every table."""
    op.create_table(
        "api_tokens",
        sa.Column("name", _Text, nullable=False),
        sa.Column("digest", _Text, nullable=False),
        sa.Column("scopes", _Text, nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.Column("used_at", sa.Double(), nullable=True),
        sa.Column("revoked_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("name"),
        sa.UniqueConstraint("digest"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "audit",
        sa.Column("id", _Id, sa.Identity(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("who", _Text, nullable=False),
        sa.Column("source", _Text, nullable=False),
        sa.Column("action", _Text, nullable=False),
        sa.Column("subject", _Text, nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("audit_by_action", "audit", ["action", "id"])
    op.create_index("audit_by_subject", "audit", ["subject", "id"])
    op.create_table(
        "batches",
        sa.Column("id", sa.LargeBinary(), nullable=False),
        sa.Column("stored_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_with_rowid=False,
    )
    op.create_index("batches_by_time", "batches", ["stored_at"])
    op.create_table(
        "channels",
        sa.Column("name", _Text, nullable=False),
        sa.Column("sent_at", sa.Double(), nullable=True),
        sa.Column("sent", _Text, nullable=False),
        sa.Column("digest_at", sa.Double(), nullable=True),
        sa.Column("failing_since", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("name"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "facts",
        sa.Column("name", _Text, nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "groups",
        sa.Column("id", _Id, sa.Identity(), nullable=False),
        sa.Column("key", _Text, nullable=False),
        sa.Column("host", _Text, nullable=False),
        sa.Column("noted_host", _Text, nullable=False),
        sa.Column("port", sa.Integer(), nullable=True),
        sa.Column("mode", _Text, nullable=False),
        sa.Column("token", _Text, nullable=False),
        sa.Column("source", _Text, nullable=False),
        sa.Column("known_pins", _Text, nullable=False),
        sa.Column("validated_pins", _Text, nullable=False),
        sa.Column("first_seen", sa.Double(), nullable=False),
        sa.Column("last_seen", sa.Double(), nullable=False),
        sa.Column("reports", sa.BigInteger(), nullable=False),
        sa.Column("sampled_after", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("issuer", _Text, nullable=True),
        sa.Column("verdict", _Text, nullable=True),
        sa.Column("severity", _Text, nullable=True),
        sa.Column("judged_with", _Text, server_default=sa.text("''"), nullable=False),
        sa.Column("state", _Text, server_default=sa.text("'open'"), nullable=False),
        sa.Column("state_at", sa.Double(), nullable=True),
        sa.Column("alerted_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("key"),
    )
    op.create_index("groups_by_first_seen", "groups", ["first_seen"])
    op.create_index("groups_by_judged_with", "groups", ["judged_with"])
    op.create_index(
        "groups_unannounced",
        "groups",
        ["id"],
        sqlite_where=sa.text("alerted_at IS NULL"),
        postgresql_where=sa.text("alerted_at IS NULL"),
    )
    op.create_index(
        "groups_without_verdict",
        "groups",
        ["id"],
        sqlite_where=sa.text("verdict IS NULL"),
        postgresql_where=sa.text("verdict IS NULL"),
    )
    op.create_table(
        "leases",
        sa.Column("work", _Text, nullable=False),
        sa.Column("holder", _Text, nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("work"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "named_tokens",
        sa.Column("token", _Text, nullable=False),
        sa.Column("named_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("token"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "outcomes",
        sa.Column("hour", sa.BigInteger(), nullable=False),
        sa.Column("token", _Text, nullable=False),
        sa.Column("outcome", _Text, nullable=False),
        sa.Column("reason", _Text, nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("hour", "token", "outcome", "reason"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "sessions",
        sa.Column("id", _Text, nullable=False),
        sa.Column("name", _Text, nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "settings",
        sa.Column("name", _Text, nullable=False),
        sa.Column("value", _Text, nullable=False),
        sa.PrimaryKeyConstraint("name"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "site_states",
        sa.Column("host", _Text, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("state", _Text, nullable=False),
        sa.Column("changed_at", sa.Double(), nullable=False),
        sa.Column("changed_by", _Text, nullable=False),
        sa.PrimaryKeyConstraint("host"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "tokens",
        sa.Column("token", _Text, nullable=False),
        sa.Column("name", _Text, nullable=False),
        sa.Column("hosts", _Text, nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("revoked_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("token"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "totals",
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("hour", sa.BigInteger(), nullable=False),
        sa.Column("mode", _Text, nullable=False),
        sa.Column("verdict", _Text, nullable=False),
        sa.Column("state", _Text, nullable=False),
        sa.Column("token", _Text, nullable=False),
        sa.Column("reports", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("step", "hour", "mode", "verdict", "state", "token"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "agents",
        sa.Column("group_id", _Id, nullable=False),
        sa.Column("user_agent", _Text, nullable=False),
        sa.Column("reports", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["group_id"], ["groups.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("group_id", "user_agent"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "authorities",
        sa.Column("pin", _Text, nullable=False),
        sa.Column("name", _Text, nullable=False),
        sa.Column("group_id", _Id, nullable=False),
        sa.ForeignKeyConstraint(["group_id"], ["groups.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("pin"),
        sqlite_with_rowid=False,
    )
    op.create_index("authorities_by_group", "authorities", ["group_id"])
    op.create_table(
        "diagnoses",
        sa.Column("group_id", _Id, nullable=False),
        sa.Column("diagnosis", _Text, nullable=False),
        sa.ForeignKeyConstraint(["group_id"], ["groups.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("group_id"),
    )
    op.create_table(
        "pins",
        sa.Column("pin", _Text, nullable=False),
        sa.Column("group_id", _Id, nullable=False),
        sa.Column("place", _Text, nullable=False),
        sa.ForeignKeyConstraint(["group_id"], ["groups.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("pin", "group_id", "place"),
        sqlite_with_rowid=False,
    )
    op.create_index("pins_by_group", "pins", ["group_id"])
    op.create_table(
        "rates",
        sa.Column("group_id", _Id, nullable=False),
        sa.Column("hour", sa.BigInteger(), nullable=False),
        sa.Column("reports", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["group_id"], ["groups.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("group_id", "hour"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "reports",
        sa.Column("id", _Id, sa.Identity(), nullable=False),
        sa.Column("group_id", _Id, nullable=False),
        sa.Column("received_at", sa.Double(), nullable=False),
        sa.Column("observed_at", sa.Double(), nullable=True),
        sa.Column("expires_at", sa.Double(), nullable=True),
        sa.Column("token", _Text, nullable=False),
        sa.Column("source", _Text, nullable=False),
        sa.Column("user_agent", _Text, nullable=False),
        sa.Column("flags", _Text, nullable=False),
        sa.ForeignKeyConstraint(["group_id"], ["groups.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("reports_by_group", "reports", ["group_id", "received_at"])
    op.create_index("reports_by_time", "reports", ["received_at"])
    op.create_table(
        "samples",
        sa.Column("report_id", _Id, autoincrement=False, nullable=False),
        sa.Column("group_id", _Id, nullable=False),
        sa.Column("body", _Text, nullable=False),
        sa.ForeignKeyConstraint(["report_id"], ["reports.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("report_id"),
    )
    op.create_index("samples_by_group", "samples", ["group_id", "report_id"])
    op.create_table(
        "pending_alerts",
        sa.Column("channel", _Text, nullable=False),
        sa.Column("group_id", _Id, nullable=False),
        sa.Column("reports", sa.BigInteger(), nullable=True),
        sa.Column("before", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["group_id"], ["groups.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("channel", "group_id"),
        sqlite_with_rowid=False,
    )
    op.create_index("pending_alerts_by_group", "pending_alerts", ["group_id"])
    op.execute(_SETTINGS.insert().values(name="secret", value=secrets.token_hex(32)))
    if op.get_bind().dialect.name == "sqlite":
        op.create_index("rates_by_hour", "rates", ["hour", "group_id", "reports"])
        op.create_index("groups_by_last_seen", "groups", ["last_seen"])
        for name in ("host", "issuer", "noted_host", "verdict"):
            op.create_index(f"groups_by_{name}", "groups", [name, "last_seen"])
        op.create_index(
            "groups_in_short",
            "groups",
            ["last_seen", "first_seen", "host", "noted_host", "mode", "verdict", "state", "token", "issuer", "reports"],
        )
        op.execute(_VIEW.format(time="datetime", epoch=", 'unixepoch'"))
    else:
        op.create_index("groups_by_host", "groups", ["host"])
        op.create_index("groups_by_noted_host", "groups", ["noted_host"])
        op.create_index("rates_by_hour", "rates", ["hour", "group_id"])
        for name in ("agents", "groups", "rates"):
            op.execute(f"ALTER TABLE {name} SET (fillfactor = 70)")
        op.execute(_COMPRESSED_BODIES)
        op.execute(_VIEW.format(time="to_timestamp", epoch=""))
