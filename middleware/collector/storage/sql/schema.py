"""The tables, once for SQLite and PostgreSQL: times are seconds since the epoch, UTC; lists are JSON texts.

groups         one row for each cause (:func:`dynpin.report.grouping_key`), with its counts and its verdict
diagnoses      the long text of a verdict, apart from groups, since every batch rewrites the rows of its groups
reports        one row for each report
samples        the bodies that are kept, apart from reports, so that a scan of reports reads little
rates          reports of a group in each hour
totals         reports in each hour (step 1) and each day (step 24, UTC, from its first hour) of all groups with the
               same mode, verdict, state and token, so that no page counts reports; if a group changes one of these, its
               reports move to another row
agents         user agents of a group
pins           the groups that contain a pin, and where it occurs
authorities    names of CAs by pin
outcomes       the intake's answers in each hour: accepted, filtered, rejected
batches        PostgreSQL only: the batches of the last day. A batch that is sent again after a lost commit counts once
audit          who decided what, and who failed to sign in
leases         which worker does which work, and until when
channels       the channels of alerts, and their state
pending_alerts the alerts that each channel has still to take
site_states    the state that the nodes of a site share
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    DDL,
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    event,
    text,
)

from .texts import StorableText

__all__ = [
    "REVISION",
    "agents",
    "api_tokens",
    "audit",
    "authorities",
    "batches",
    "channels",
    "diagnoses",
    "facts",
    "groups",
    "leases",
    "metadata",
    "named_tokens",
    "outcomes",
    "pending_alerts",
    "pins",
    "rates",
    "reports",
    "samples",
    "sessions",
    "settings",
    "site_states",
    "tokens",
    "totals",
]

# The newest migration, which makes these tables.
REVISION = "0001"

metadata = MetaData()
# SQLite numbers the rows itself if the type is INTEGER.
_Id = BigInteger().with_variant(Integer(), "sqlite")


def _table(name: str, *columns: Column[Any], rowid: bool = False) -> Table:
    # SQLite then stores the rows in the order of the primary key, without a rowid.
    return Table(name, metadata, *columns, sqlite_with_rowid=rowid)


def _id() -> Column[Any]:
    return Column("id", _Id, Identity(), primary_key=True)


def _text(name: str, *more: Any, **options: Any) -> Column[Any]:  # noqa: ANN401 - as SQLAlchemy has it
    options.setdefault("nullable", False)
    return Column(name, StorableText, *more, **options)


def _time(name: str, **options: Any) -> Column[Any]:  # noqa: ANN401 - as SQLAlchemy has it
    options.setdefault("nullable", False)
    return Column(name, Double, **options)


def _number(name: str, **options: Any) -> Column[Any]:  # noqa: ANN401 - as SQLAlchemy has it
    options.setdefault("nullable", False)
    return Column(name, BigInteger, **options)


def _of_group(**options: Any) -> Column[Any]:  # noqa: ANN401 - as SQLAlchemy has it
    options.setdefault("nullable", False)
    return Column("group_id", _Id, ForeignKey("groups.id", ondelete="CASCADE"), **options)


groups = _table(
    "groups",
    _id(),
    _text("key", unique=True),
    _text("host"),
    _text("noted_host"),
    Column("port", Integer),
    _text("mode"),
    _text("token"),
    # The source of the first report. Sources take turns when groups wait for a verdict.
    _text("source"),
    _text("known_pins"),
    _text("validated_pins"),
    _time("first_seen"),
    _time("last_seen"),
    _number("reports"),
    # How many reports the group had when its last body was deleted. The new sample counts from there.
    _number("sampled_after", server_default=text("0")),
    Column("issuer", StorableText),
    Column("verdict", StorableText),
    Column("severity", StorableText),
    # Identifies the keys and roots of the verdict. With other keys or roots the group is judged again.
    _text("judged_with", server_default=text("''")),
    _text("state", server_default=text("'open'")),
    _time("state_at", nullable=True),
    _time("alerted_at", nullable=True),
    rowid=True,
)
Index("groups_by_first_seen", groups.c.first_seen)
Index("groups_by_judged_with", groups.c.judged_with)
# Every batch changes `last_seen` of its groups. PostgreSQL has no index on it: then it updates no index (HOT), and it
# sorts all groups within milliseconds. SQLite updates only the indexes that change.
for _dialect, _more in (("sqlite", ("last_seen",)), ("postgresql", ())):
    for _name in ("host", "noted_host"):
        Index(f"groups_by_{_name}", *(groups.c[name] for name in (_name, *_more))).ddl_if(dialect=_dialect)
for _name in ("verdict", "issuer"):
    Index(f"groups_by_{_name}", groups.c[_name], groups.c.last_seen).ddl_if(dialect="sqlite")
Index("groups_by_last_seen", groups.c.last_seen).ddl_if(dialect="sqlite")
# All columns of a tally, so that SQLite reads only the index.
_SHORT = ("last_seen", "first_seen", "host", "noted_host", "mode", "verdict", "state", "token", "issuer", "reports")
Index("groups_in_short", *(groups.c[name] for name in _SHORT)).ddl_if(dialect="sqlite")
for _name, _condition in (
    ("groups_unannounced", groups.c.alerted_at.is_(None)),
    ("groups_without_verdict", groups.c.verdict.is_(None)),
):
    Index(_name, groups.c.id, sqlite_where=_condition, postgresql_where=_condition)

# A diagnosis has several kilobytes of JSON: twenty times the rest of its group.
diagnoses = _table("diagnoses", _of_group(primary_key=True), _text("diagnosis"), rowid=True)
pins = _table("pins", _text("pin", primary_key=True), _of_group(primary_key=True), _text("place", primary_key=True))
Index("pins_by_group", pins.c.group_id)
authorities = _table("authorities", _text("pin", primary_key=True), _text("name"), _of_group())
Index("authorities_by_group", authorities.c.group_id)

reports = _table(
    "reports",
    _id(),
    _of_group(),
    _time("received_at"),
    _time("observed_at", nullable=True),
    _time("expires_at", nullable=True),
    _text("token"),
    _text("source"),
    _text("user_agent"),
    _text("flags"),
    rowid=True,
)
Index("reports_by_group", reports.c.group_id, reports.c.received_at)
Index("reports_by_time", reports.c.received_at)
samples = _table(
    "samples",
    Column("report_id", _Id, ForeignKey("reports.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    # The report's group. Without a foreign key: the report has one, and its samples are deleted with it.
    Column("group_id", _Id, nullable=False),
    _text("body"),
    rowid=True,
)
Index("samples_by_group", samples.c.group_id, samples.c.report_id)
rates = _table("rates", _of_group(primary_key=True), _number("hour", primary_key=True), _number("reports"))
# With the number of reports in the index, SQLite does not read the rows. PostgreSQL would then write an index entry for
# each row in each batch (no HOT).
for _dialect, _more in (("sqlite", ("reports",)), ("postgresql", ())):
    Index("rates_by_hour", *(rates.c[name] for name in ("hour", "group_id", *_more))).ddl_if(dialect=_dialect)
totals = _table(
    "totals",
    _number("step", primary_key=True),
    _number("hour", primary_key=True),
    *(_text(name, primary_key=True) for name in ("mode", "verdict", "state", "token")),
    _number("reports"),
)
agents = _table("agents", _of_group(primary_key=True), _text("user_agent", primary_key=True), _number("reports"))
outcomes = _table(
    "outcomes",
    _number("hour", primary_key=True),
    *(_text(name, primary_key=True) for name in ("token", "outcome", "reason")),
    _number("count"),
)
batches = _table("batches", Column("id", LargeBinary, primary_key=True), _time("stored_at"))
Index("batches_by_time", batches.c.stored_at)

tokens = _table(
    "tokens",
    _text("token", primary_key=True),
    _text("name"),
    _text("hosts"),
    _time("created_at"),
    _time("revoked_at", nullable=True),
)
# The tokens in the settings of a collector, and when a collector last started with them. They hold while it runs.
named_tokens = _table("named_tokens", _text("token", primary_key=True), _time("named_at"))
sessions = _table("sessions", _text("id", primary_key=True), _text("name"), _time("expires_at"))
api_tokens = _table(
    "api_tokens",
    _text("name", primary_key=True),
    _text("digest", unique=True),
    _text("scopes"),
    _time("created_at"),
    _time("expires_at"),
    _time("used_at", nullable=True),
    _time("revoked_at", nullable=True),
)
audit = _table(
    "audit", _id(), _time("at"), _text("who"), _text("source"), _text("action"), _text("subject"), rowid=True
)
Index("audit_by_subject", audit.c.subject, audit.c.id)
Index("audit_by_action", audit.c.action, audit.c.id)
channels = _table(
    "channels",
    _text("name", primary_key=True),
    _time("sent_at", nullable=True),
    _text("sent"),
    _time("digest_at", nullable=True),
    _time("failing_since", nullable=True),
)
# For a group that rises: its reports in an hour, and before. NULL for a new group.
pending_alerts = _table(
    "pending_alerts",
    _text("channel", primary_key=True),
    _of_group(primary_key=True),
    _number("reports", nullable=True),
    _time("before", nullable=True),
)
Index("pending_alerts_by_group", pending_alerts.c.group_id)
leases = _table("leases", _text("work", primary_key=True), _text("holder"), _time("expires_at"))
site_states = _table(
    "site_states",
    _text("host", primary_key=True),
    _number("version"),
    _text("state"),
    _time("changed_at"),
    _text("changed_by"),
)
# Numbers and texts of the storage itself, by their names.
facts = _table("facts", _text("name", primary_key=True), _time("value"))
settings = _table("settings", _text("name", primary_key=True), _text("value"))

# A view with times as text, for Datasette and psql.
_READABLE = """
CREATE VIEW readable_reports AS
    SELECT reports.id, {time}(reports.received_at{epoch}) AS received, {time}(reports.observed_at{epoch}) AS observed,
           groups.host, groups.noted_host, groups.port, groups.mode, groups.verdict, groups.issuer,
           reports.token, reports.source, reports.user_agent, reports.flags, samples.body
    FROM reports JOIN groups ON groups.id = reports.group_id LEFT JOIN samples ON samples.report_id = reports.id
"""
for _dialect, _function, _epoch in (("sqlite", "datetime", ", 'unixepoch'"), ("postgresql", "to_timestamp", "")):
    _view: DDL = DDL(_READABLE.format(time=_function, epoch=_epoch))  # type: ignore[no-untyped-call] # SQLAlchemy's
    event.listen(metadata, "after_create", _view.execute_if(dialect=_dialect))
# LZ4 halves a long body, since it contains most certificates twice. That takes less time than writing the other half.
# PostgreSQL's own method takes longer, so a server that was built without LZ4 does not compress bodies.
_COMPRESSED_BODIES = """
DO $$BEGIN
    ALTER TABLE samples ALTER body SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN
    ALTER TABLE samples ALTER body SET STORAGE EXTERNAL;
END$$
"""
# Free space beside each row that batches update, for its next version (HOT).
_ROOM = tuple(f"ALTER TABLE {name} SET (fillfactor = 70)" for name in ("agents", "groups", "rates"))
for _sql in (*_ROOM, _COMPRESSED_BODIES):
    _change: DDL = DDL(_sql)  # type: ignore[no-untyped-call] # SQLAlchemy's
    event.listen(metadata, "after_create", _change.execute_if(dialect="postgresql"))
