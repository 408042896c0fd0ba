"""Alembic's entry point; `web_app.db.migrations.migrate` hands the connection over."""

from __future__ import annotations

from alembic import context

from web_app.db.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,  # SQLite cannot alter most of a table in place
    transactional_ddl=True,  # also on SQLite, where web_app.db.session begins transactions: a crash leaves no half step
)
with context.begin_transaction():
    context.run_migrations()
