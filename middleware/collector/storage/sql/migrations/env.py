"""Alembic's entry point. It runs the migrations on the caller's connection, and the caller commits."""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()
